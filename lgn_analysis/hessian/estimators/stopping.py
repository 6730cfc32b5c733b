"""Growing an estimate until it is as large or as certain as was asked, and on from there.

An estimator is an :class:`Estimator`: it takes probes and knows its error. :func:`run` decides how many,
says why it stopped, and gives the result a way to go on, :meth:`TraceResult.extend`. That is all a new
estimator needs::

    return run(MyEstimator(...), n_probes=n_probes, tolerances=Tolerances(rtol=rtol), smallest=8)

Probe number i must depend on the seed and on i alone, never on how many are taken at a time: then
4 probes and 4 more are the bits of 8.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final, Self

import pandas as pd
from torch import Tensor
from tqdm.auto import tqdm

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.validation import whole
from lgn_analysis.hessian.results.intervals import (
    ALPHA,
    STOPPED_ALPHA,
    Tolerances,
    interim_analyses,
)
from lgn_analysis.hessian.results.trace import TraceResult

MAX_MATVECS: Final = 2000
"""Products that one call spends without being asked for more."""

Advance = Callable[[int], object]


def grow(
    sizes: Iterable[int],
    add: Callable[[int], object],
    half_width: Callable[[], float],
    allowed: Callable[[], tuple[float, str]],
) -> tuple[bool, str]:
    """Analyse rising numbers of probes, and stop at the first interval that is narrow enough.

    Args:
        sizes: numbers of probes, as :func:`interim_analyses` gives them.
        add: takes probes up to such a number.
        half_width: of the interval of the probes so far.
        allowed: what it may be, and the name of the tolerance.

    Returns:
        whether one was, and the tolerance that was met, or by how much it was missed.
    """
    for size in sizes:
        add(size)
        half, (limit, name) = half_width(), allowed()
        if half <= limit:
            return True, f"converged ({name})"
    return False, f"± {half:.2g}, {name} asks {limit:.2g}"


class Estimator(ABC):
    """A trace estimate under way.

    Attributes:
        names: of the operator's slices.
        seed: of the probes.
        error_kind: as in :class:`TraceResult`; only a standard error has an interval.
    """

    names: list[str]
    seed: int
    error_kind = "standard error"

    @property
    @abstractmethod
    def n_probes(self) -> int:
        """Probes taken so far."""

    @property
    @abstractmethod
    def n_matvecs(self) -> int:
        """Products spent so far."""

    @property
    @abstractmethod
    def estimate(self) -> float:
        """tr(H) as it stands."""

    @property
    def frobenius(self) -> float | None:
        """‖H‖_F as the probes estimate it, for ``ftol``; None where they do not."""
        return None

    def limit(self, max_matvecs: int) -> tuple[int, str]:
        """Return the most probes within so many products in all, and what sets that limit."""
        return max_matvecs, f"max_matvecs={max_matvecs}"

    @abstractmethod
    def add(self, count: int, advance: Advance) -> None:
        """Take ``count`` more probes; call ``advance(products)`` as they are done."""

    @abstractmethod
    def copy(self) -> Self:
        """Return an estimator that goes on from here and leaves this one as it is."""

    @abstractmethod
    def half_width(self, alpha: float) -> float:
        """Return the half-width of the interval, or what stands for it, at level 1 - alpha."""

    @abstractmethod
    def errors(self) -> tuple[float, Tensor, Tensor]:
        """Return the error of the estimate, the trace of each slice [n_slices], and the errors of those."""

    @property
    def reason(self) -> str:
        """What the result adds to the verdict."""
        return ""

    def result(self, alpha: float) -> TraceResult:
        """Return the estimate; :func:`run` fills in ``converged`` and puts the verdict before ``reason``."""
        stderr, layers, layer_errors = self.errors()
        estimate = self.estimate
        half = self.half_width(alpha) if self.error_kind == "standard error" else math.nan
        columns = {"estimate": layers.tolist(), "stderr": layer_errors.tolist()}
        return TraceResult(
            estimate=estimate,
            stderr=stderr,
            ci=(estimate - half, estimate + half),
            per_layer=pd.DataFrame({"layer": self.names, **columns}),
            n_matvecs=self.n_matvecs,
            converged=False,
            reason=self.reason,
            seed=self.seed,
            error_kind=self.error_kind,
        )


def run(
    estimator: Estimator,
    *,
    n_probes: int | None = None,
    tolerances: Tolerances | None = None,
    smallest: int,
    max_matvecs: int = MAX_MATVECS,
    looked: bool = False,
    progress: bool = False,
) -> TraceResult:
    """Take probes, exactly ``n_probes`` more or until a tolerance is met, and return the result.

    Looks at ``smallest`` probes, then half as many again each time, and stops at the first interval that
    is narrow enough. An interval that decided when to stop is reported at ``STOPPED_ALPHA``.

    Args:
        estimator: it is changed.
        n_probes: exactly so many more, whatever the tolerances.
        tolerances: when to stop.
        smallest: probes of the first interim analysis.
        max_matvecs: the most products in all.
        looked: whether a tolerance has decided about this estimate before.
        progress: show a progress bar.

    Raises:
        InvalidInputError: neither a tolerance nor a number, or too few probes for an error.
    """
    if n_probes is not None:
        n_probes = whole("n_probes", n_probes)
    smallest = whole("min_probes", smallest)
    max_matvecs = whole("max_matvecs", max_matvecs)
    tolerances = tolerances or Tolerances()
    if n_probes is None and not tolerances:
        raise InvalidInputError("give a tolerance (rtol, atol or ftol), or n_probes")
    with tqdm(desc="trace", unit="product", disable=not progress) as bar:
        if n_probes is not None:
            target = estimator.n_probes + n_probes
            if n_probes < 0 or target < 2:
                raise InvalidInputError(f"an interval needs at least 2 probes, got {target}")
            estimator.add(n_probes, bar.update)
            converged, reason = True, f"{target} probes as asked"
        else:
            looked = True
            most, cause = estimator.limit(max_matvecs)
            first = max(min(smallest, most), estimator.n_probes)
            if first < 2:
                raise InvalidInputError(
                    f"an interval needs at least 2 probes, and {cause} allows {max(first, 0)}"
                )
            converged, reason = grow(
                interim_analyses(first, max(first, most)),
                lambda size: estimator.add(size - estimator.n_probes, bar.update),
                lambda: estimator.half_width(STOPPED_ALPHA),
                lambda: tolerances.allowed(estimator.estimate, estimator.frobenius),
            )
            reason = reason if converged else f"stopped at {cause}: {reason}"
    result = estimator.result(STOPPED_ALPHA if looked else ALPHA)
    reason = f"{reason}; {result.reason}" if result.reason else reason

    def more(
        n_probes: int | None, tolerances: Tolerances, max_matvecs: int | None, progress: bool
    ) -> TraceResult:
        spent = estimator.n_matvecs
        return run(
            estimator.copy(),
            n_probes=n_probes,
            tolerances=tolerances,
            smallest=smallest,
            max_matvecs=spent + MAX_MATVECS if max_matvecs is None else max_matvecs,
            looked=looked,
            progress=progress,
        )

    return replace(result, converged=converged, reason=reason, continuation=more)
