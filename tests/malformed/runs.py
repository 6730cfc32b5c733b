"""Calls about runs, evaluations and files of models that cannot be answered, and all that is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import nn

import lgn_analysis as lgn
from lgn_analysis.data import Dataset
from tests.malformed.networks import BITS, Call, Small, network


def _trained(sentence: str, **options: Any) -> Call:
    steps = {"steps": 2, "batch_size": 20, "progress": False}

    def work(small: Small) -> object:
        return lgn.train(network(), small.data, **{**steps, **options})

    return Call(f"train({options})", work, sentence)


def _evaluated(sentence: str, **options: Any) -> Call:
    return Call(
        f"evaluate({options})", lambda s: lgn.evaluate(s.model, s.data, **options), sentence
    )


def _on(name: str, pair: Callable[[Small], Any], sentence: str) -> Call:
    return Call(f"evaluate on {name}", lambda s: lgn.evaluate(s.model, pair(s)), sentence)


_PAIR: Final = "the data must be a Dataset or a pair of tensors (x, y), got "
_MAKES: Final = "; Dataset.from_arrays makes one of arrays"

TRAINING: Final = [
    _trained("steps must be at least 1, got 0", steps=0),
    _trained("steps must be a whole number, got 2.5", steps=2.5),
    _trained("steps must be a whole number, got True", steps=True),
    _trained(
        "batch_size 91 exceeds the 90 training samples of 'separable'; use at most 90",
        batch_size=91,
    ),
    _trained("lr must be a number, got 'fast'", lr="fast"),
    _trained("lr must be finite and above zero, got nan", lr=torch.nan),
    _trained("seed must lie in 0..2**63-1, got 9223372036854775808", seed=2**63),
    _trained("eval_every must be at least 1, got 0", eval_every=0),
    _trained("noise_draws must be a whole number, got 1.5", noise_draws=1.5),
    _trained(
        "tau_steps must be at least 1, got 0", tau_schedule="linear", tau_end=0.1, tau_steps=0
    ),
    _trained("tau_end must be a number, got 'low'", tau_schedule="linear", tau_end="low"),
    Call(
        "training what is no logic gate network",
        lambda s: lgn.train(nn.Linear(12, 3), s.data, progress=False),  # type: ignore[arg-type]
        "only a LogicNetwork has a configuration to train by, got Linear",
    ),
    Call(
        "training on other features",
        lambda s: lgn.train(network(n_features=9), s.data, steps=1, progress=False),
        "the network reads 9 features and 'separable' has 12",
    ),
    Call(
        "training on more classes",
        lambda s: lgn.train(network(n_classes=2), s.data, steps=1, progress=False),
        "labels must lie in 0..1, got 0..2",
    ),
    Call(
        "a schedule for CAGE",
        lambda s: lgn.train(
            network(relaxation=lgn.CAGE()),
            s.data,
            batch_size=20,
            tau_schedule="linear",
            tau_end=0.1,
            progress=False,
        ),
        "CAGE adapts its temperature by itself; leave tau_schedule out, or train HardST",
    ),
    Call(
        "training into a run",
        lambda s: lgn.train(network(), s.data, out=s.folder / "run", progress=False),
        "{folder}/run exists and is not empty; resume it (lgn-analysis train --resume {folder}/run), or "
        "choose another directory",
    ),
    Call(
        "resuming nothing",
        lambda s: lgn.resume(s.folder / "nothing"),
        "there is no run directory at {folder}/nothing",
    ),
    Call(
        "resuming a file",
        lambda s: lgn.resume(s.folder / "text"),
        "there is no run directory at {folder}/text",
    ),
    Call(
        "resuming a folder",
        lambda s: lgn.resume(s.folder),
        "there is no checkpoint at {folder}/last.safetensors",
    ),
    Call(
        "resuming for fewer steps",
        lambda s: lgn.resume(s.folder / "run", data=s.data, steps=1),
        "{folder}/run holds 2 steps already; give steps=2 or more",
    ),
    Call(
        "resuming on other data",
        lambda s: lgn.resume(
            s.folder / "run",
            data=Dataset.from_arrays(*[~s.x, s.y] * 3, name="other"),
        ),
        "{folder}/run was trained on other data than this 'other' (the fingerprints differ); pass the "
        "original data",
    ),
    Call(
        "loading nothing",
        lambda s: lgn.load(s.folder / "nothing"),
        "there is no checkpoint at {folder}/nothing",
    ),
    Call(
        "loading a text",
        lambda s: lgn.load(s.folder / "text"),
        "{folder}/text is not a whole safetensors file: …",
    ),
    Call(
        "loading other tensors",
        lambda s: lgn.load(s.folder / "other.safetensors"),
        "{folder}/other.safetensors was not written by lgn_analysis",
    ),
    Call(
        "saving half precision",
        lambda s: lgn.save(network(dtype=torch.float16), s.folder / "half"),
        "a float16 network cannot be stored; use float32 or float64",
    ),
    Call(
        "moving data to no device",
        lambda s: s.data.to("gpu"),
        "unknown device 'gpu'; use cpu, cuda or cuda:N",
    ),
]

EVALUATION: Final = [
    _evaluated("unknown split 'valid'; use 'train', 'val' or 'test'", split="valid"),
    _evaluated("noise_draws must be at least 1, got 0", noise_draws=0),
    _evaluated("noise_draws must be a whole number, got 1.5", noise_draws=1.5),
    _evaluated("noise_seed must lie in 0..2**64-1, got -1", noise_seed=-1),
    _evaluated("batch_size must be at least 1, got 0", batch_size=0),
    _evaluated("batch_size must be a whole number, got None", batch_size=None),
    Call(
        "evaluating what is no logic gate network",
        lambda s: lgn.evaluate(nn.Linear(12, 3), s.data),  # type: ignore[arg-type]
        "an evaluation needs a LogicNetwork, got Linear; lgn.convert(module) makes one of the logic layers that it knows",
    ),
    _on("a name", lambda s: "digits", _PAIR + "<class 'str'>" + _MAKES),
    _on("arrays", lambda s: (s.x.numpy(), s.y.numpy()), _PAIR + "<class 'tuple'>" + _MAKES),
    _on("three tensors", lambda s: (s.x, s.y, s.y), _PAIR + "<class 'tuple'>" + _MAKES),
    _on(
        "one sample",
        lambda s: (s.x[0], s.y[:12]),
        "x must be [n, n_features], got shape (12,); one sample is x.unsqueeze(0)",
    ),
    _on(
        "other features",
        lambda s: (s.x[:, :9], s.y),
        "expected inputs [batch, 12], got shape (45, 9)",
    ),
    _on("fewer labels", lambda s: (s.x, s.y[:3]), "x holds 45 samples and y 3; they must be equal"),
    _on(
        "one label",
        lambda s: (s.x, s.y[0]),
        "x holds 45 samples and y a single label; they must be equal",
    ),
    _on(
        "no samples",
        lambda s: (s.x[:0], s.y[:0]),
        "the split 'test' is empty; there is nothing to evaluate",
    ),
    _on(
        "missing values",
        lambda s: (s.x * torch.nan, s.y),
        "the features hold 540 values that are NaN or infinite",
    ),
    _on("halves", lambda s: (s.x / 2, s.y), BITS),
    _on("floating labels", lambda s: (s.x, s.y / 1), "labels must be integers, got torch.float32"),
    _on(
        "columns of labels",
        lambda s: (s.x, s.y[:, None]),
        "labels must be class numbers [n], got shape (45, 1)",
    ),
    _on("labels from 1", lambda s: (s.x, s.y + 1), "labels must lie in 0..2, got 1..3"),
    Call(
        "gate usage on no samples",
        lambda s: lgn.gate_usage(s.model, s.x[:0]),
        "constant gates are counted on at least one sample, got none",
    ),
    Call(
        "gate usage in batches of none",
        lambda s: lgn.gate_usage(s.model, s.x, batch_size=0),
        "batch_size must be at least 1, got 0",
    ),
    Call(
        "convergence to per cents",
        lambda s: lgn.convergence(lgn.read_history(s.folder / "run"), 95),
        "accuracy must be a fraction in 0..1, got 95.0",
    ),
    Call(
        "convergence on no split",
        lambda s: lgn.convergence(lgn.read_history(s.folder / "run"), 0.9, split="valid"),
        "the history has no split 'valid'; it has ['test', 'val']",
    ),
    Call(
        "convergence of no history",
        lambda s: lgn.convergence({"step": [1]}, 0.9),  # type: ignore[arg-type]
        "a history is a DataFrame, such as lgn.train(…).history, got dict",
    ),
]
