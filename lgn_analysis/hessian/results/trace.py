"""What estimators return: frozen, with their uncertainty, ready for a table."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import pandas as pd

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.hessian.results.intervals import Tolerances
from lgn_analysis.hessian.results.table import Tabular

Continuation = Callable[[int | None, Tolerances, int | None, bool], "TraceResult"]
"""Goes on with an estimate: probes or None, tolerances, max_matvecs or None, progress."""


@dataclass(frozen=True)
class TraceResult(Tabular):
    """An estimate of tr(H) with its error.

    Attributes:
        estimate: tr(H).
        stderr: its error; ``error_kind`` says which.
        ci: the 95 % interval; NaN where the estimator owns none.
        per_layer: a row a slice of the operator: layer, estimate, stderr.
        n_matvecs: products spent.
        converged: whether the error became as small as was asked for.
        reason: which tolerance was met, or why the estimator stopped.
        seed: seed of the probe vectors.
        error_kind: ``"standard error"``, the root of a variance that is estimated without bias and has
            an interval built on it; or ``"error estimate"``, a size that the error is likely to have, from
            terms that depend on each other, with no interval.
        continuation: how :meth:`extend` goes on; None for a result that cannot.
    """

    estimate: float
    stderr: float
    ci: tuple[float, float]
    per_layer: pd.DataFrame = field(compare=False)
    n_matvecs: int
    converged: bool
    reason: str
    seed: int
    error_kind: str = "standard error"
    continuation: Continuation | None = field(default=None, compare=False)

    @property
    def has_interval(self) -> bool:
        """Whether ``ci`` is a 95 % interval."""
        return not math.isnan(self.ci[0])

    def extend(
        self,
        n_probes: int | None = None,
        *,
        rtol: float | None = None,
        atol: float | None = None,
        ftol: float | None = None,
        max_matvecs: int | None = None,
        progress: bool = False,
    ) -> TraceResult:
        """Return the estimate with more probes; no product is spent twice, and this one stays.

        ``trace(n_probes=4)`` extended by 4 is ``trace(n_probes=8)``, to the bit where a product does not
        depend on how many are multiplied at a time, and else to rounding. Once a tolerance has
        decided about the number of probes, the interval stays the wider one of stopped runs.

        Args:
            n_probes: exactly so many more.
            rtol: or until the half-width is at most ``rtol·|estimate|``,
            atol: or this,
            ftol: or ``ftol·‖H‖_F``.
            max_matvecs: the most products in all, those already spent included; None allows 2000
                more.
            progress: show a progress bar.

        Raises:
            InvalidInputError: this result has been pickled or copied, or was not made by an estimator.
        """
        if self.continuation is None:
            raise InvalidInputError(
                "this result holds no estimator to go on from (a copy or a pickled result does not); "
                "run it again with more probes"
            )
        return self.continuation(n_probes, Tolerances(rtol, atol, ftol), max_matvecs, progress)

    def to_frame(self) -> pd.DataFrame:
        """Return one row."""
        return pd.DataFrame(
            [
                {
                    "estimate": self.estimate,
                    "stderr": self.stderr,
                    "error_kind": self.error_kind,
                    "ci_low": self.ci[0],
                    "ci_high": self.ci[1],
                    "n_matvecs": self.n_matvecs,
                    "converged": self.converged,
                    "reason": self.reason,
                    "seed": self.seed,
                }
            ]
        )

    def __getstate__(self) -> dict[str, object]:
        # The operator and its data stay behind.
        return {**self.__dict__, "continuation": None}

    def __repr__(self) -> str:
        interval = (
            f"95 % [{self.ci[0]:.6g}, {self.ci[1]:.6g}]" if self.has_interval else "no interval"
        )
        return (
            f"TraceResult({self.estimate:.6g} ± {self.stderr:.2g} ({self.error_kind}), {interval}, "
            f"{self.n_matvecs} products, {self.reason})"
        )


@dataclass(frozen=True)
class FrobeniusResult(Tabular):
    """An estimate of ‖H‖_F with its 95 % interval; attributes as in :class:`TraceResult`."""

    estimate: float
    stderr: float
    ci: tuple[float, float]
    n_matvecs: int
    converged: bool
    reason: str
    seed: int

    def to_frame(self) -> pd.DataFrame:
        """Return one row."""
        row = {**asdict(self), "ci_low": self.ci[0], "ci_high": self.ci[1]}
        del row["ci"]
        return pd.DataFrame([row])

    def __repr__(self) -> str:
        return (
            f"FrobeniusResult({self.estimate:.6g} ± {self.stderr:.2g} (standard error), 95 % "
            f"[{self.ci[0]:.6g}, {self.ci[1]:.6g}], {self.n_matvecs} products, {self.reason})"
        )
