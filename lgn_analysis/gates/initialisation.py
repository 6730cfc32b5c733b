"""Initial gate logits: ``normal`` (z ~ N(0, 1)) or ``residual`` (every gate nearly returns A).

Source: Petersen et al. 2022 (normal), Petersen et al. 2024 (residual: z[3] = 5, P(A) about 0.908).
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.table import GATE_NAMES, N_GATES

INITIALISATIONS: Final = ("normal", "residual")
RESIDUAL_GATE: Final = GATE_NAMES.index("A")
RESIDUAL_LOGIT: Final = 5.0


def initial_logits(
    kind: str, n_gates: int, *, generator: torch.Generator, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return the starting logits [n_gates, 16].

    Raises:
        InvalidInputError: the kind is unknown.
    """
    if kind == "normal":
        # Drawn in float64 whatever the dtype, so that a float32 and a float64 network agree.
        normal = torch.randn(n_gates, N_GATES, generator=generator, dtype=torch.float64)
        return normal.to(dtype)
    if kind == "residual":
        logits = torch.zeros(n_gates, N_GATES, dtype=dtype)
        logits[:, RESIDUAL_GATE] = RESIDUAL_LOGIT
        return logits
    raise InvalidInputError(f"unknown init {kind!r}; use one of {', '.join(INITIALISATIONS)}")
