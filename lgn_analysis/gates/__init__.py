"""Facts and pure functions: gates, wiring, noise, relaxations, initialisation, schedules."""

from lgn_analysis.gates.table import (
    COEFFICIENTS,
    GATE_NAMES,
    N_GATES,
    TRUTH_TABLE,
    gate_coefficients,
    reads_inputs,
)

__all__ = [
    "COEFFICIENTS",
    "GATE_NAMES",
    "N_GATES",
    "TRUTH_TABLE",
    "gate_coefficients",
    "reads_inputs",
]
