"""How results look in a notebook."""

from __future__ import annotations

from abc import ABC, abstractmethod

import pandas as pd


class Tabular(ABC):
    """A result that a notebook shows as its table."""

    @abstractmethod
    def to_frame(self) -> pd.DataFrame:
        """Return the result as a table."""

    def _repr_html_(self) -> str:
        return str(self.to_frame().to_html(index=False))
