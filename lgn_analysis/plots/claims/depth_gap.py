"""Figure of C4: the gap at the end of training against depth."""

from __future__ import annotations

from functools import partial
from typing import Final

from lgn_analysis.plots.sizes import figure_by_size

figure: Final = partial(figure_by_size, size="depth")
