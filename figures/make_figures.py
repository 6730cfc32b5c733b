"""Make what is in this folder again, from the CSVs beside this script and their JSONs alone.

    python figures/make_figures.py                 # every figure
    python figures/make_figures.py gap lemma_1     # some

and in any case the ledgers (claims.csv, claims.md), the reports (report.html) and the table of claims
in the README: here those of the preset `fashion`, and of the preset `cpu` in `digits/`. Equal CSVs give
equal bytes, the figures on one release of Matplotlib. ``lgn-analysis reproduce`` makes the CSVs.
"""

import sys
from pathlib import Path

from lgn_analysis.cli import main

FOLDER = Path(__file__).parent


def redraw(folder: Path, names: list[str], *options: str) -> int:
    """Draw the figures of a folder, or those of the names that it has a CSV of."""
    here = [name for name in names if (folder / f"{name}.csv").is_file()]
    if names and not here:
        return 0
    return main(["figures", *here, "--folder", str(folder), *options])


if __name__ == "__main__":
    readme = str(FOLDER.parent / "README.md")
    sys.exit(
        redraw(FOLDER / "digits", sys.argv[1:]) or redraw(FOLDER, sys.argv[1:], "--readme", readme)
    )
