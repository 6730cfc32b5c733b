"""Two processes that share a batch take the steps of one: same noise, same weights."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

import lgn_analysis as lgn
from lgn_analysis.base import distributed
from lgn_analysis.base.errors import InvalidInputError

TRAIN = (
    "import sys, lgn_analysis as lgn\n"
    "from lgn_analysis.base.distributed import process_group\n"
    "with process_group('cpu'):\n"
    "    data = lgn.load_dataset('digits')\n"
    "    kind = getattr(lgn, sys.argv[1])()\n"
    "    model = lgn.LogicNetwork(960, 500, 2, 10, 10.0, relaxation=kind)\n"
    "    moving = {} if sys.argv[1] == 'CAGE' else {'tau_schedule': 'linear', 'tau_end': 0.5}\n"
    "    lgn.train(model, data, steps=12, batch_size=64, eval_every=6, out=sys.argv[2],\n"
    "              progress=False, **moving)\n"
)
PLAIN = """
import sys, torch
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
import lgn_analysis as lgn
from lgn_analysis.base.distributed import process_group, world

with process_group("cpu"):
    rank, size = world()
    torch.manual_seed(100 + rank)  # ranks disagree on purpose: rank 0's noise must rule
    data = lgn.load_dataset("digits")
    network = lgn.LogicNetwork(960, 500, 2, 10, 10.0, relaxation=lgn.GumbelST())
    model = DistributedDataParallel(network) if size > 1 else network
    torch.manual_seed(100)
    optimiser = torch.optim.SGD(network.parameters(), lr=10.0)
    for step in range(4):
        x, y = data.x_train[64 * step : 64 * (step + 1)], data.y_train[64 * step : 64 * (step + 1)]
        part = slice(rank * 64 // size, (rank + 1) * 64 // size)
        if rank:
            torch.rand(rank)  # whatever else a rank draws
        loss = F.cross_entropy(model(x[part]), y[part])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    if rank == 0:
        lgn.save(network, sys.argv[1])
    del model  # DDP's threads belong to the group
"""


def torchrun(n, script, *args):
    """Run a script in n gloo processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(n), *map(str, (script, *args))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def alone(script, *args):
    command = [sys.executable, *map(str, (script, *args))]
    subprocess.run(command, capture_output=True, text=True, check=True)


def weights(path):
    return torch.cat([layer.logits.detach().reshape(-1) for layer in lgn.load(path).layers])


@pytest.mark.parametrize(
    "relaxation",
    ["CAGE", *(pytest.param(name, marks=pytest.mark.slow) for name in ("GumbelST", "Soft"))],
)
def test_two_processes_match_one_at_the_same_global_batch(relaxation, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(TRAIN)
    torchrun(2, script, relaxation, tmp_path / "two")
    alone(script, relaxation, tmp_path / "one")
    two, one = (weights(tmp_path / name / "last.safetensors") for name in ("two", "one"))
    # Adam divides by the root of a gradient's square: where a gradient is all rounding, so is the
    # step, at most lr = 0.01 a step. Almost all agree to float32 rounding.
    assert (two - one).abs().max() <= 0.12
    assert ((two - one).abs() < 1e-4).double().mean() > 0.99
    if relaxation == "CAGE":
        models = [lgn.load(tmp_path / name / "last.safetensors") for name in ("two", "one")]
        c = [[float(layer.confidence) for layer in model.layers] for model in models]
        assert c[0] == pytest.approx(c[1], rel=1e-4)
        assert min(c[0]) > 1 / 16
    histories = [pd.read_csv(tmp_path / name / "history.csv") for name in ("two", "one")]
    assert histories[0]["loss"].to_list()[2:] == pytest.approx(
        histories[1]["loss"].to_list()[2:], rel=1e-4
    )


def test_a_plain_loop_under_ddp_shares_rank_zeros_noise(tmp_path):
    script = tmp_path / "plain.py"
    script.write_text(PLAIN)
    torchrun(2, script, tmp_path / "two.safetensors")
    alone(script, tmp_path / "one.safetensors")
    two, one = weights(tmp_path / "two.safetensors"), weights(tmp_path / "one.safetensors")
    assert torch.allclose(two, one, atol=1e-5)


def test_the_command_trains_under_torchrun_and_only_one_rank_speaks(tmp_path):
    script = tmp_path / "command.py"
    script.write_text(
        "import sys\nfrom lgn_analysis.cli import main\nsys.exit(main(sys.argv[1:]))\n"
    )
    out = tmp_path / "run"
    args = ["train", "--width", 500, "--depth", 2, "--steps", 4, "--batch-size", 32]
    done = torchrun(2, script, *args, "--no-progress", "--out", out)
    assert done.stdout.count("run directory") == 1
    assert {path.name for path in Path(out).iterdir()} == {
        ".lock",
        "config.toml",
        "history.csv",
        "last.safetensors",
        "best.safetensors",
    }


def test_a_batch_that_cannot_be_shared_equally_is_refused(monkeypatch):
    monkeypatch.setattr(distributed, "world", lambda: (1, 3))
    with pytest.raises(InvalidInputError, match="use 126 or 129"):
        distributed.shard(128)
    assert distributed.shard(129) == slice(43, 86)


def test_without_a_process_group_there_is_one_rank():
    tensor = torch.ones(3)
    distributed.average([tensor])
    distributed.copy_from_rank_zero([tensor])
    distributed.wait_for_all()
    assert distributed.world() == (0, 1)
    assert distributed.from_rank_zero(2**63 - 1) == 2**63 - 1
    assert tensor.tolist() == [1, 1, 1]
