"""Estimates and analyses of curvature that cannot be made, and all that is said of them."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import nn

import lgn_analysis as lgn
from lgn_analysis.hessian import DenseOperator, lanczos, top_eigenpairs
from tests.malformed.networks import Call, Small, network
from tests.malformed.probes import each


def _asked(sentence: str, what: str, **options: Any) -> Call:
    return Call(f"{what}({options})", lambda s: getattr(s.probe, what)(**options), sentence)


def _seen(sentence: str, **options: Any) -> Call:
    def work(s: Small) -> object:
        return lgn.landscape(s.model, (s.x, s.y), **{"dims": 1, "grid": 3, **options})

    return Call(f"landscape({options!r:.60})", work, sentence)


def _compared(sentence: str, **options: Any) -> Call:
    parts = {"eigs": False, "frobenius": False, "density": False, "n_samples": 20}

    def work(s: Small) -> object:
        return lgn.compare(s.model, network(seed=2), s.data, **{**parts, **options})

    return Call(f"compare({options})", work, sentence)


def _lemma(sentence: str, **options: Any) -> Call:
    return Call(
        f"lemma1({options})", lambda s: lgn.lemma1(s.model, (s.x, s.y), **options), sentence
    )


def _hard(sentence: str, **options: Any) -> Call:
    return Call(
        f"hard_lemma({options})", lambda s: lgn.hard_lemma(s.model, (s.x, s.y), **options), sentence
    )


def _signals(sentence: str, **options: Any) -> Call:
    def work(s: Small) -> object:
        return lgn.signal_propagation(s.model, s.data, **{"batch_size": 8, **options})

    return Call(f"signal_propagation({options})", work, sentence)


def _tracked(sentence: str, **options: Any) -> Call:
    return Call(f"ProbeTracker({options})", lambda s: lgn.ProbeTracker(s.data, **options), sentence)


_CHANCE: Final = (
    " would stop a run by chance where the trace is near zero; give at most 0.5, or atol or ftol"
)

ESTIMATES: Final = [
    _asked(
        "unknown method 'magic'; use one of auto, activation, hutchinson, hutch++, xtrace",
        "trace",
        method="magic",
    ),
    _asked("rtol=0.6" + _CHANCE, "trace", rtol=0.6),
    _asked("rtol must be a number, got 'small'", "trace", rtol="small"),
    _asked("atol must be finite and not below zero, got -1", "trace", atol=-1),
    _asked("give a tolerance (rtol, atol or ftol), or n_probes", "trace", rtol=None),
    _asked("an interval needs at least 2 probes, got 1", "trace", n_probes=1),
    _asked("n_probes must be a whole number, got 2.5", "trace", n_probes=2.5),
    _asked(
        "an interval needs at least 2 probes, and max_matvecs=1 allows 1", "trace", max_matvecs=1
    ),
    _asked("seed must be a whole number, got 'a'", "trace", seed="a"),
    _asked(
        "method='activation' has no option 'probes'; it has rtol, atol, n_probes, min_probes, max_matvecs, "
        "seed, progress, ftol",
        "trace",
        probes="gaussian",
    ),
    _asked(
        "unknown probes 'cauchy'; use one of rademacher, gaussian",
        "trace",
        method="hutchinson",
        probes="cauchy",
    ),
    _asked(
        "a sketch of 32 vectors of 384 numbers takes 144 KiB, and max_bytes allows 100 KiB; lower sketch, "
        "or raise max_bytes",
        "trace",
        method="hutch++",
        max_bytes=100 * 1024,
    ),
    _asked("sketch must be at least 1, got 0", "trace", method="hutch++", sketch=0),
    Call(
        "going on with a trace in one probe less",
        lambda s: s.probe.trace(n_probes=2).extend(-1),
        "an interval needs at least 2 probes, got 1",
    ),
    _asked("k must lie in 1..384, got 0", "eigs", k=0),
    _asked("k must be a whole number, got 2.5", "eigs", k=2.5),
    _asked("which must be one of LA, SA, LM, BE, got 'SM'", "eigs", which="SM"),
    _asked("method must be one of auto, lanczos, dense, got 'qr'", "eigs", method="qr"),
    _asked("tol must be above zero, got nan", "eigs", tol=torch.nan),
    _asked("10 pairs need at least 21 products, got 3", "eigs", method="lanczos", max_matvecs=3),
    _asked(
        "10 pairs of 384 numbers take at least 387 KiB, and max_bytes allows 100 bytes; lower k, or raise "
        "max_bytes",
        "eigs",
        method="lanczos",
        max_bytes=100,
    ),
    _asked(
        "the eigenvalues of a dense matrix of 384 rows take 7.88 MiB, and max_bytes allows 1 MiB; use "
        "method='lanczos', or raise max_bytes",
        "eigs",
        method="dense",
        max_bytes=2**20,
    ),
    _asked("n_probes and steps must be at least 1, got 0 and 40", "density", n_probes=0),
    _asked("steps must be a whole number, got 1.5", "density", steps=1.5),
    _asked("tol must be finite and above zero, got nan", "density", tol=torch.nan),
    _asked("deflate must lie in 0..383, got 384", "density", deflate=384),
    _asked(
        "40 Lanczos steps with 384 numbers a vector take 79.5 KiB, and max_bytes allows 50 KiB: enough for "
        "20 steps; lower steps, or raise max_bytes",
        "density",
        method="lanczos",
        max_bytes=50 * 1024,
        deflate=0,
    ),
    _asked("give a tolerance (rtol), or n_probes", "frobenius", rtol=None),
    Call(
        "a quantile above one",
        lambda s: s.probe.density().quantile(2.0),
        "a quantile is asked for a share in 0..1, got 2.0",
    ),
    Call(
        "an operator of a vector",
        lambda s: DenseOperator(torch.ones(3)),
        "expected a square matrix, got shape (3,)",
    ),
    Call(
        "an operator of whole numbers",
        lambda s: DenseOperator(torch.eye(3, dtype=torch.int64)),
        "expected a matrix in a floating tensor, got torch.int64",
    ),
    Call(
        "eigenvalues of NaN",
        lambda s: top_eigenpairs(DenseOperator(torch.eye(3) * torch.nan), k=1),
        "the product of the operator and a unit vector is not finite",
    ),
    Call(
        "Lanczos from zero",
        lambda s: lanczos(DenseOperator(torch.eye(3)), torch.zeros(3), 2),
        "Lanczos needs a start vector other than zero",
    ),
    Call(
        "Lanczos from another length",
        lambda s: lanczos(DenseOperator(torch.eye(3)), torch.ones(4), 2),
        "expected a start vector of 3 numbers, got shape (4,)",
    ),
]

ANALYSES: Final = [
    Call(
        "a landscape of a module",
        lambda s: lgn.landscape(nn.Linear(12, 3), (s.x, s.y)),  # type: ignore[arg-type]
        "a landscape needs a LogicNetwork, got Linear; lgn.convert(module) makes one of the logic layers that it knows",
    ),
    _seen(
        "unknown directions 'pca'; use one of filter, eigen, discrete, or one or two vectors",
        directions="pca",
    ),
    _seen(
        "directions must be one of filter, eigen, discrete, or a tuple of one or two vectors, got Tensor",
        directions=torch.ones(384),
    ),
    _seen(
        "a direction must be a vector of 384 numbers, got shape (3,)", directions=(torch.ones(3),)
    ),
    _seen("a direction must be finite and other than zero", directions=(torch.zeros(384),)),
    _seen("dims must be 2 or 1 for these directions, got 3", dims=3),
    _seen("a second difference needs a grid of at least 3, got 2", grid=2),
    _seen("span must be finite and not empty, got 0.0 to 0.0", span=0),
    _seen("span must be a number or a pair (low, high), got 'wide'", span="wide"),
    _seen(
        "between the soft and the discrete network t lies in [0, 1], got 0.0 to 2.0",
        directions="discrete",
        span=(0.0, 2.0),
    ),
    _compared("labels must be two different names, got ('a', 'a')", labels=("a", "a")),
    _compared("unknown split 'valid'; use 'train', 'val' or 'test'", probe_split="valid"),
    _compared("n_samples must be at least 1, got 0", n_samples=0),
    _compared(
        "the interval of a difference needs an even number of products, at least 4, got 3",
        n_probes=3,
    ),
    _compared("rtol must be above zero, got 0", rtol=0),
    Call(
        "a comparison with a module",
        lambda s: lgn.compare(s.model, nn.Linear(12, 3), s.data),  # type: ignore[arg-type]
        "a comparison needs a LogicNetwork, got Linear; lgn.convert(module) makes one of the logic layers that it knows",
    ),
    Call(
        "the anatomy of a module",
        lambda s: lgn.gap_anatomy(nn.Linear(12, 3), s.data),  # type: ignore[arg-type]
        "a gap anatomy needs a LogicNetwork, got Linear; lgn.convert(module) makes one of the logic layers that it knows",
    ),
    Call(
        "an anatomy of a loss a sample",
        lambda s: lgn.gap_anatomy(s.model, s.data, loss_fn=each),
        "loss_fn must return the mean over the batch, a number; it returned shape (45,)",
    ),
    Call(
        "an anatomy in batches of none",
        lambda s: lgn.gap_anatomy(s.model, s.data, batch_size=0),
        "batch_size must be at least 1, got 0",
    ),
    _lemma("scales must be finite and above zero, got [0.0]", scales=[0.0]),
    _lemma("scales must be a list of numbers, got 0.1", scales=0.1),
    _lemma("an interval needs at least 2 draws, got 1", draws=1),
    _lemma("order must be 2, 3 or 4, got 5", order=5),
    _hard("an interval needs at least 2 draws, got 1", draws=1),
    _hard("loss_fn must be a function of (output, y), got 'mean'; …", loss_fn="mean"),
    _hard("give a tolerance (rtol, atol or ftol), or n_probes", rtol=None),
    Call(
        "signals of a module",
        lambda s: lgn.signal_propagation(nn.Linear(12, 3), s.data),  # type: ignore[arg-type]
        "signal propagation needs a LogicNetwork, got Linear; lgn.convert(module) makes one of the logic layers that it knows",
    ),
    _signals("batches must be an even number, at least 6 (three blocks of two), got 5", batches=5),
    _signals(
        "the data hold 90 samples, fewer than a batch of 128; lower batch_size", batch_size=128
    ),
    _signals("draws must be at least 2, got 1", draws=1),
    _signals("eps must be finite and above zero, got 0", eps=0),
    _signals("lr must be a number, got 'fast'", lr="fast"),
    _tracked("there is nothing to probe; ask for trace, eigs, density or signals", trace=False),
    _tracked("signals must be an even number, at least 6 (three blocks of two), got 2", signals=2),
    _tracked("every must be a whole number, got 1.5", every=1.5),
    _tracked("at must be a collection of steps, got 3", at=3),
    _tracked("eigs must be 0 or at least 2, one at each end, got 1", eigs=1),
    _tracked("rtol=2" + _CHANCE, rtol=2.0),
    _tracked("max_matvecs must be at least 2, got 0", max_matvecs=0),
]
