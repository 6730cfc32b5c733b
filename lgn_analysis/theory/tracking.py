"""Curvature and signals over training: a probe that is passed to the training loop as a callback."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import pandas as pd
from torch import Tensor
from torch.nn import functional

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.validation import positive, seed_number, shown, whole
from lgn_analysis.data import Dataset
from lgn_analysis.hessian.operators.linear import LossFn, isolated
from lgn_analysis.hessian.operators.losses import check_loss
from lgn_analysis.hessian.operators.smoothing import GumbelNoise, check_noise, given_tau
from lgn_analysis.hessian.probe import HessianProbe
from lgn_analysis.hessian.results.intervals import Tolerances
from lgn_analysis.hessian.results.spectrum import DensityResult
from lgn_analysis.hessian.results.table import Tabular
from lgn_analysis.hessian.results.trace import TraceResult
from lgn_analysis.network import LogicNetwork
from lgn_analysis.theory.samples import draw_samples
from lgn_analysis.theory.signal_propagation import check_batches, signal_propagation
from lgn_analysis.theory.signal_result import SignalResult

_EIGEN_TOLERANCE: Final = 1e-3
_BATCH: Final = 128
_COLUMNS: Final = {
    "trace": ("trace", "trace_stderr", "trace_low", "trace_high", "trace_u"),
    "eigs": ("lambda_max", "lambda_min"),
    "density": ("negative_mass",),
    "signals": ("below_eps", "gradient_rms_first", "gradient_rms_last"),
}
"""What is written into a history, by what is asked for."""


@dataclass(frozen=True)
class TrackedCurvature(Tabular):
    """What was probed at one step.

    Attributes:
        step: training step.
        tau: gate temperature of the probed loss.
        trace: tr(H) in z; None if not asked for.
        eigs: eigenvalues at both ends of the spectrum with their residuals, the frame of an
            ``EigenResult``; None if not asked for.
        vectors: their eigenvectors, float64 [n_params, k]; None if not kept.
        density: spectral density; None if not asked for.
        signal: gradients and activations by layer; None if not asked for.
    """

    step: int
    tau: float
    trace: TraceResult | None
    eigs: pd.DataFrame | None
    vectors: Tensor | None
    density: DensityResult | None
    signal: SignalResult | None

    def columns(self) -> dict[str, float]:
        """Return the numbers that go into a history; see :class:`ProbeTracker`."""
        values: list[float] = []
        names: list[str] = []
        if self.trace is not None:
            found = self.trace
            names += _COLUMNS["trace"]
            values += [found.estimate, found.stderr, *found.ci, self.tau**2 * found.estimate]
        if self.eigs is not None:
            names += _COLUMNS["eigs"]
            values += [self.eigs["value"].iloc[0], self.eigs["value"].iloc[-1]]
        if self.density is not None:
            names += _COLUMNS["density"]
            values.append(self.density.negative_mass)
        if self.signal is not None:
            layers = self.signal.layers
            names += _COLUMNS["signals"]
            values += [layers["below_eps"].mean(), *layers["gradient_rms"].iloc[[0, -1]]]
        return dict(zip(names, map(float, values), strict=True))

    def to_frame(self) -> pd.DataFrame:
        """Return one row."""
        return pd.DataFrame([{"step": self.step, "tau": self.tau, **self.columns()}])

    def __repr__(self) -> str:
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in self.columns().items())
        return f"TrackedCurvature(step {self.step}, tau {self.tau:g}: {numbers})"


class ProbeTracker(Tabular):
    """Probe a network while it trains, its soft loss's Hessian first: ``lgn.train(…, callbacks=[tracker])``.

    At an evaluation that is probed, these columns join the history's rows of that step, of every
    split alike: ``trace`` (in z) with ``trace_stderr``, ``trace_low``, ``trace_high`` (95 %) and
    ``trace_u`` = tau²·trace; ``lambda_max`` and ``lambda_min``; ``negative_mass``; and of signals, which
    :meth:`signal_frame` has by layer, ``below_eps`` over all layers and the ``gradient_rms`` of the first and
    of the last. They hold NaN at the evaluations in between. The model and torch's random state are left as they were, so training
    gives the same bits with a tracker and without.

    The same samples and the same probe seed serve every step, so that a change is the network's.

    A resumed run calls the tracker that it is given: the same one goes on counting, a new one begins
    at the first evaluation after the checkpoint; ``at`` names steps and does not depend on that.

    Args:
        data: a data set, of which the training split is probed, or a pair (x, y).
        every: probe the first evaluation and each ``every``-th after it; None probes only those of ``at``.
        at: steps to probe besides; they take effect where the run evaluates.
        trace: estimate tr(H).
        eigs: eigenpairs to find, half at each end; 0 for none, or at least 2.
        density: estimate the spectral density.
        signals: take gradients of so many batches for :func:`lgn_analysis.signal_propagation`, each of 128
            samples or of all where there are fewer; 0 for none.
        rtol: tolerance of the trace.
        n_samples: probe so many samples at most, drawn by ``seed`` without replacement.
        loss_fn: ``loss_fn(output, y)``, the mean over the batch.
        noise: probe the loss smoothed by this noise instead.
        tau: gate temperature; None is the noise's, or else the model's.
        batch_size: split the samples, to bound memory.
        max_matvecs: the most products that one trace may spend.
        keep_vectors: keep eigenvectors in ``results``: n_params · eigs numbers a step.
        prefix: goes before each column's name, to tell several trackers of one run apart.
        seed: seed of samples and probes.

    Attributes:
        results: what was probed, by step.

    Raises:
        InvalidInputError: there is nothing to probe, or a number is out of range.

    >>> import lgn_analysis as lgn
    >>> data = lgn.load_dataset("digits")
    >>> model = lgn.LogicNetwork(data.n_features, width=500, depth=1, n_classes=10, group_tau=10.0)
    >>> tracker = lgn.ProbeTracker(data, every=2, n_samples=64)
    >>> result = lgn.train(model, data, steps=3, eval_every=1, callbacks=[tracker], progress=False)
    >>> sorted(tracker.results)
    [0, 2]
    """

    def __init__(
        self,
        data: Dataset | tuple[Tensor, Tensor],
        *,
        every: int | None = 1,
        at: Collection[int] = (),
        trace: bool = True,
        eigs: int = 0,
        density: bool = False,
        signals: int = 0,
        rtol: float = 0.05,
        n_samples: int = 512,
        loss_fn: LossFn = functional.cross_entropy,
        noise: GumbelNoise | None = None,
        tau: float | None = None,
        batch_size: int | None = None,
        max_matvecs: int = 2000,
        keep_vectors: bool = False,
        prefix: str = "",
        seed: int = 0,
    ) -> None:
        if not (trace or eigs or density or signals):
            raise InvalidInputError(
                "there is nothing to probe; ask for trace, eigs, density or signals"
            )
        every = None if every is None else whole("every", every)
        if every is not None and every < 1:
            raise InvalidInputError(f"every must be at least 1, or None, got {every}")
        if not isinstance(at, Collection) or isinstance(at, str):
            raise InvalidInputError(f"at must be a collection of steps, got {shown(at)}")
        at = [whole("a step of at", step, least=0) for step in at]
        if every is None and not at:
            raise InvalidInputError("no evaluation would be probed; give every, or steps in at")
        eigs = whole("eigs", eigs)
        if eigs != 0 and eigs < 2:
            raise InvalidInputError(f"eigs must be 0 or at least 2, one at each end, got {eigs}")
        signals = check_batches(signals, "signals") if signals != 0 else 0
        check_loss(loss_fn)
        check_noise(noise)
        Tolerances(rtol)
        if batch_size is not None:
            whole("batch_size", batch_size, least=1)
        whole("max_matvecs", max_matvecs, least=2)
        if not isinstance(prefix, str):
            raise InvalidInputError(f"prefix must be a text, got {shown(prefix)}")
        tau = None if tau is None else positive("tau", tau)
        seed = seed_number(seed)
        self._sample = draw_samples(data, "train", n_samples, seed)
        self.every = every
        self.at = frozenset(at)
        self.trace = trace
        self.eigs = eigs
        self.density = density
        self.signals = signals
        self.rtol = rtol
        self.loss_fn = loss_fn
        self.noise = noise
        self.tau = tau
        self.batch_size = batch_size
        self.max_matvecs = max_matvecs
        self.keep_vectors = keep_vectors
        self.prefix = prefix
        self.seed = seed
        self.results: dict[int, TrackedCurvature] = {}
        self._evaluations = 0

    def __call__(self, step: int, model: LogicNetwork, row: dict[str, float]) -> None:
        """Probe ``model`` if it is due at this evaluation, and write the columns into ``row``."""
        due = self.every is not None and self._evaluations % self.every == 0
        self._evaluations += 1
        columns = dict.fromkeys(self._columns, math.nan)
        if due or step in self.at:
            result = self._probe(step, model)
            self.results[step] = result
            columns |= result.columns()
        for name, value in columns.items():
            if self.prefix + name in row:
                raise InvalidInputError(
                    f"another callback writes the column {self.prefix + name!r}; give this tracker "
                    "a prefix"
                )
            row[self.prefix + name] = value

    def to_frame(self) -> pd.DataFrame:
        """Return a row a probe: step, tau and the columns, without prefix."""
        if not self.results:
            return pd.DataFrame(columns=["step", "tau", *self._columns])
        frames = [self.results[step].to_frame() for step in sorted(self.results)]
        return pd.concat(frames, ignore_index=True)

    def signal_frame(self) -> pd.DataFrame:
        """Return a row a probe and layer: step and the columns of the :class:`SignalResult`."""
        signals = [(step, self.results[step].signal) for step in sorted(self.results)]
        frames = [signal.to_frame().assign(step=step) for step, signal in signals if signal]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["step"])

    def __repr__(self) -> str:
        asked = [name for name in ("trace", "density") if getattr(self, name)]
        asked += [f"{self.eigs} eigenvalues"] if self.eigs else []
        asked += [f"signals of {self.signals} batches"] if self.signals else []
        steps = ", ".join(map(str, sorted(self.results))) or "none"
        return (
            f"ProbeTracker({', '.join(asked)}; {len(self._sample[1])} samples, seed {self.seed}; "
            f"probed steps: {steps})"
        )

    @property
    def _columns(self) -> list[str]:
        return [name for part, names in _COLUMNS.items() if getattr(self, part) for name in names]

    def _probe(self, step: int, model: LogicNetwork) -> TrackedCurvature:
        with isolated(model.device, draws=False):  # the probe itself leaves no trace
            probe = HessianProbe(
                model,
                self._sample,
                loss_fn=self.loss_fn,
                noise=self.noise,
                tau=self.tau,
                batch_size=self.batch_size,
            )
            trace = eigs = vectors = density = signal = None
            if self.trace:
                trace = probe.trace(rtol=self.rtol, max_matvecs=self.max_matvecs, seed=self.seed)
            if self.eigs:
                pairs = probe.eigs(k=self.eigs, tol=_EIGEN_TOLERANCE, seed=self.seed)
                eigs = pairs.to_frame()
                vectors = pairs.vectors if self.keep_vectors else None
            if self.density:
                density = probe.density(seed=self.seed)
            if self.signals:
                size = min(_BATCH, len(self._sample[1]))
                signal = signal_propagation(
                    model, self._sample, batches=self.signals, batch_size=size, seed=self.seed
                )
        given = given_tau(self.tau, self.noise)
        tau = model.relaxation.tau if given is None else given
        return TrackedCurvature(step, tau, trace, eigs, vectors, density, signal)
