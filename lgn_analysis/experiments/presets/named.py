"""The presets by name; what each runs is data, in the modules beside this one."""

from __future__ import annotations

from typing import Final

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.experiments.presets.cpu import CPU
from lgn_analysis.experiments.presets.fashion import FASHION
from lgn_analysis.experiments.presets.paper import PAPER
from lgn_analysis.experiments.presets.quick import QUICK, SMOKE
from lgn_analysis.experiments.settings import Preset

__all__ = ["PRESETS", "Preset", "find_preset"]

PRESETS: Final = {preset.name: preset for preset in (QUICK, CPU, FASHION, PAPER, SMOKE)}


def find_preset(name: str) -> Preset:
    """Return the preset called ``name``.

    Raises:
        InvalidInputError: there is none.
    """
    if name not in PRESETS:
        raise InvalidInputError(f"unknown preset {name!r}; use one of {', '.join(PRESETS)}")
    return PRESETS[name]
