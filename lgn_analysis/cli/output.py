"""Printing from the first rank only."""

from __future__ import annotations


def echo(*lines: object) -> None:
    """Print lines, from the first rank alone."""
    from lgn_analysis.base.distributed import world

    if world()[0] == 0:
        for line in lines:
            print(line)
