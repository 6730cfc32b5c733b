"""When an estimate is certain enough."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.validation import real
from lgn_analysis.hessian.results.intervals import LARGEST_RTOL


@dataclass(frozen=True)
class Tolerances:
    """Any one of these suffices: half-width at most rtol·|estimate|, atol, or ftol·‖H‖_F."""

    rtol: float | None = None
    atol: float | None = None
    ftol: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not (math.isfinite(real(name, value)) and value >= 0):
                raise InvalidInputError(f"{name} must be finite and not below zero, got {value}")
        if self.rtol is not None and self.rtol > LARGEST_RTOL:
            raise InvalidInputError(
                f"rtol={self.rtol:g} would stop a run by chance where the trace is near zero; give "
                f"at most {LARGEST_RTOL}, or atol or ftol"
            )

    def __bool__(self) -> bool:
        return any(value is not None for value in vars(self).values())

    def allowed(self, estimate: float, frobenius: float | None) -> tuple[float, str]:
        """Return the half-width that is allowed, and the name of the tolerance that allows it."""
        options = []
        if self.rtol is not None:
            options.append((self.rtol * abs(estimate), "rtol"))
        if self.atol is not None:
            options.append((self.atol, "atol"))
        if self.ftol is not None:
            if frobenius is None:
                raise InvalidInputError("these probes do not tell ‖H‖_F; give atol instead of ftol")
            options.append((self.ftol * frobenius, "ftol"))
        return max(options)
