"""Figure of M9: accuracy and gap at the end of training against the largest logit."""

from __future__ import annotations

from functools import partial
from typing import Final

from lgn_analysis.plots.sizes import figure_by_size

figure: Final = partial(figure_by_size, size="r")
