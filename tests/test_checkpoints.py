"""A model is complete in its file, and a file that is not one is refused in one sentence."""

from __future__ import annotations

import inspect
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lgn_analysis import checkpoints
from lgn_analysis.base.errors import CheckpointError, InvalidInputError, StorageError
from lgn_analysis.base.files import checksum
from lgn_analysis.checkpoints import load, read_checkpoint, save, write_checkpoint
from lgn_analysis.gates.relaxations import RELAXATIONS
from lgn_analysis.network import LogicNetwork
from tests.tiny import NetworkFactory, random_bits

WRITE = json.dumps
Change = Callable[[dict[str, Any], dict[str, Tensor]], None]

LOAD_ELSEWHERE = """
import json, sys, torch
from lgn_analysis.checkpoints import load
x = torch.tensor(json.loads(sys.argv[1]))
outputs = {}
for path in sys.argv[2:]:
    model = load(path)
    assert not model.training
    outputs[path] = {str(mode): model(x, mode=mode, draw=3).tolist()
                     for mode in ["soft", "discrete", *["noisy"] * model.relaxation.noisy]}
    outputs[path]["eval"] = model(x).tolist()
    outputs[path]["train"] = model.train()(x, draw=3).tolist()
    outputs[path]["dtype"] = str(model.dtype)
print(json.dumps(outputs))
"""


def test_a_new_process_finds_the_same_network_in_the_file(
    make_network: NetworkFactory, tmp_path: Path
) -> None:
    """Trap 2: every mode, to the bit; JSON writes a float exactly."""
    x = random_bits(70, 9).long()
    expected = {}
    for name, kind in RELAXATIONS.items():
        for dtype in (torch.float32, torch.float64):
            path = tmp_path / f"{name}-{dtype}.safetensors"
            model = make_network(relaxation=kind(0.7), dtype=dtype, n_groups=6, wiring="unique")
            for layer in model.layers:  # not what its seed would draw again
                layer.wiring[:] = layer.wiring.flip(1)
                layer.logits.data += 0.5
            save(model, path)
            modes = ["soft", "discrete", *["noisy"] * kind.noisy]
            expected[str(path)] = {mode: model(x, mode=mode, draw=3).tolist() for mode in modes} | {
                "eval": model.eval()(x).tolist(),
                "train": model.train()(x, draw=3).tolist(),
                "dtype": str(dtype),
            }
    command = [sys.executable, "-c", LOAD_ELSEWHERE, json.dumps(x.tolist()), *expected]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == expected


def test_facts_and_tensors_come_back(make_network: NetworkFactory, tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "model.safetensors"
    tensors = {"0/step": torch.tensor(3.0), "logits": torch.arange(4)}
    info = {"best": [0.1 + 0.2, -1e-300], "none": None, "text": "ü", "nested": {"a": [1]}}
    model = make_network()
    write_checkpoint(path, model, tensors=tensors, info=info)
    checkpoint = read_checkpoint(path)
    assert checkpoint.info == info
    assert checkpoint.tensors.keys() == tensors.keys()
    assert all(torch.equal(tensors[name], value) for name, value in checkpoint.tensors.items())
    assert checkpoint.model.config == model.config


def test_a_file_from_before_an_option_was_added_has_its_default(
    make_network: NetworkFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An option that has its default may be missing, whichever it is."""
    model, x = make_network(), random_bits(20, 9)
    whole = dict(model.config)
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(LogicNetwork.__init__).parameters.items()
    }
    optional = [
        name for name in whole if whole[name] == defaults.get(name, inspect.Parameter.empty)
    ]
    assert {"wiring", "init", "grad_factor"} <= set(optional)
    for name in optional:
        older = {key: value for key, value in whole.items() if key != name}
        monkeypatch.setattr(
            checkpoints.json,
            "dumps",
            lambda header, older=older: WRITE({**header, "network": older}),
        )
        save(model, tmp_path / name)
        monkeypatch.undo()
        loaded = load(tmp_path / name)
        assert loaded.config == whole
        assert torch.equal(loaded(x, mode="soft"), model(x, mode="soft"))


def test_a_loaded_model_trains_on(make_network: NetworkFactory, tmp_path: Path) -> None:
    save(make_network(), tmp_path / "m")
    model = load(tmp_path / "m").train()
    model(random_bits(20, 9), draw=0)[:, 0].sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in model.parameters())


def test_a_dtype_that_cannot_be_stored_is_refused(
    make_network: NetworkFactory, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match="a bfloat16 network cannot be stored"):
        save(make_network(dtype=torch.bfloat16), tmp_path / "m")
    assert [*tmp_path.iterdir()] == []


def refused(path: Path, message: str) -> None:
    """Assert that loading raises CheckpointError with one sentence that names the file."""
    with pytest.raises(CheckpointError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "missing", "there is no checkpoint at")
    refused(tmp_path, "there is no checkpoint at")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.999])
def test_a_torn_file_is_refused(make_network: NetworkFactory, tmp_path: Path, share: float) -> None:
    path = tmp_path / "m"
    save(make_network(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    refused(path, "is not a whole safetensors file")


@pytest.mark.parametrize("seed", range(5))
def test_random_bytes_are_refused(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "m"
    path.write_bytes(
        bytes(torch.randint(256, (5000,), generator=torch.Generator().manual_seed(seed)))
    )
    refused(path, "is not a whole safetensors file")


class Bomb:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize(
    "writer", [torch.save, lambda it, path: path.write_bytes(pickle.dumps(it))]
)
def test_a_pickle_is_refused_and_not_run(tmp_path: Path, writer: Any) -> None:
    path, mark = tmp_path / "m", tmp_path / "mark"
    writer({"model": Bomb(mark)}, path)
    refused(path, "is not a whole safetensors file")
    assert not mark.exists()


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"format": "pt"},
        {"lgn_analysis": "no json"},
        {"lgn_analysis": "[1]"},
        {"lgn_analysis": "{}"},
        {"lgn_analysis": '{"format": "other", "format_version": 1}'},
    ],
)
def test_a_foreign_safetensors_file_is_refused(
    tmp_path: Path, metadata: dict[str, str] | None
) -> None:
    path = tmp_path / "m"
    save_file({"weight": torch.zeros(3)}, path, metadata=metadata)
    refused(path, "was not written by lgn_analysis")


def rewrite(path: Path, change: Change) -> None:
    """Change the header and the tensors of a checkpoint in place, and its checksums with them."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["lgn_analysis"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(header, tensors)
    header["checksums"] = checkpoints._checksums(tensors)
    text = json.dumps(header)
    sums = {"lgn_analysis.sha256": checksum(text.encode())}
    save_file(tensors, path, metadata={"lgn_analysis": text, **sums})


CHANGES: dict[str, tuple[Change, str]] = {
    "a version to come": (
        lambda h, t: h.update(format_version=3),
        "has format version 3, this package reads 2; use the version of lgn_analysis that wrote it",
    ),
    "no network": (lambda h, t: h.pop("network"), "describes no network that can be built"),
    "network of a list": (lambda h, t: h.update(network=[1]), "describes no network that can be"),
    "no relaxation": (lambda h, t: h["network"].pop("relaxation"), "describes no network"),
    "an unknown relaxation": (
        lambda h, t: h["network"].update(relaxation="hard"),
        "unknown relaxation 'hard'",
    ),
    "an unknown argument": (lambda h, t: h["network"].update(hue=1), "describes no network"),
    "a width that does not fit": (
        lambda h, t: h["network"].update(width=13),
        "13 is not divisible",
    ),
    "a width beyond memory": (lambda h, t: h["network"].update(width=3 * 10**17), "no network"),
    "a text for a width": (lambda h, t: h["network"].update(width="12"), "describes no network"),
    "an unknown dtype": (lambda h, t: h.update(dtype="float16"), "describes no network"),
    "no info": (lambda h, t: h.pop("info"), "has a torn header"),
    "another width": (
        lambda h, t: h["network"].update(width=15),
        r"layers.0.logits should have shape \(15, 16\) and has \(12, 16\)",
    ),
    "another depth": (lambda h, t: h["network"].update(depth=4), "does not hold the network it"),
    "a lost tensor": (
        lambda h, t: t.pop("model/layers.1.wiring"),
        "does not hold the network it describes: layers.1.wiring",
    ),
    "a tensor too many": (
        lambda h, t: t.update({"model/layers.9.logits": torch.zeros(1)}),
        "does not hold the network it describes: layers.9.logits",
    ),
    "a wiring out of range": (
        lambda h, t: t["model/layers.0.wiring"].fill_(9),
        r"layer 0: wiring indices must lie in 0\.\.8, got 9\.\.9",
    ),
    "a wiring of floats": (
        lambda h, t: t.update({"model/layers.0.wiring": torch.zeros(2, 12)}),
        "layer 0: a wiring holds integer indices",
    ),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_a_file_that_contradicts_itself_is_refused(
    make_network: NetworkFactory, tmp_path: Path, change: Change, message: str
) -> None:
    path = tmp_path / "m"
    save(make_network(), path)
    rewrite(path, lambda header, tensors: None)
    load(path)
    rewrite(path, change)
    refused(path, message)


@pytest.mark.parametrize("failure", [OSError("no space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file(
    make_network: NetworkFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
) -> None:
    path = tmp_path / "m"
    save(make_network(seed=1), path)
    old = path.read_bytes()

    def fail_half_way(tensors: dict[str, Tensor], target: Path, metadata: dict[str, str]) -> None:
        Path(target).write_bytes(old[: len(old) // 2])
        raise failure

    monkeypatch.setattr(checkpoints, "save_file", fail_half_way)
    with pytest.raises(StorageError if isinstance(failure, OSError) else KeyboardInterrupt):
        save(make_network(seed=2), path)
    assert path.read_bytes() == old
    assert [*tmp_path.iterdir()] == [path], "and nothing beside it"


def test_facts_that_are_no_json_leave_the_old_file(
    make_network: NetworkFactory, tmp_path: Path
) -> None:
    path = tmp_path / "m"
    save(make_network(seed=1), path)
    old = path.read_bytes()
    with pytest.raises(TypeError):
        write_checkpoint(path, make_network(seed=2), info={"x": object()})
    assert path.read_bytes() == old


@pytest.mark.parametrize("seed", range(4))
def test_a_flipped_bit_is_refused(make_network: NetworkFactory, tmp_path: Path, seed: int) -> None:
    """Any one, in the header or in a tensor: 150 of them a seed."""
    path = tmp_path / "m"
    write_checkpoint(path, make_network(seed=seed), tensors={"0/step": torch.tensor(3.0)})
    whole = path.read_bytes()
    n_header = 8 + int.from_bytes(whole[:8], "little")
    generator = torch.Generator().manual_seed(seed)
    for first, last in ((0, 8), (8, n_header), (n_header, len(whole))):
        for place in torch.randint(first, last, (50,), generator=generator).tolist():
            torn = bytearray(whole)
            torn[place] ^= 1 << int(torch.randint(8, (), generator=generator))
            path.write_bytes(torn)
            refused(path, "is damaged|is not a whole safetensors file|not written by lgn_analysis")


def test_a_changed_weight_is_damage(make_network: NetworkFactory, tmp_path: Path) -> None:
    path = tmp_path / "m"
    save(make_network(), path)
    torn = bytearray(path.read_bytes())
    torn[-1] ^= 1
    path.write_bytes(torn)
    refused(path, "is damaged: it is not what its checksum says was written; use another copy")


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_a_checkpoint_is_as_readable_as_any_new_file(
    make_network: NetworkFactory, tmp_path: Path
) -> None:
    save(make_network(), tmp_path / "m")
    (tmp_path / "plain").touch()
    assert (tmp_path / "m").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_saving_keeps_the_mode_of_the_model(make_network: NetworkFactory, tmp_path: Path) -> None:
    for training in (True, False):
        model: LogicNetwork = make_network().train(training)
        save(model, tmp_path / "m")
        assert model.training is training
