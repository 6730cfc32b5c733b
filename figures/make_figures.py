"""Make what is in this folder again, from the CSVs beside this script and their JSONs alone.

    python figures/make_figures.py                 # every figure
    python figures/make_figures.py gap lemma_1     # some

and in any case the ledger (claims.csv, claims.md), the report (report.html) and the table of claims
in the README. Equal CSVs give equal bytes, the figures on one release of Matplotlib.
``lgn-analysis reproduce`` makes the CSVs.
"""

import sys
from pathlib import Path

from lgn_analysis.cli import main

FOLDER = Path(__file__).parent

if __name__ == "__main__":
    options = ["--folder", str(FOLDER), "--readme", str(FOLDER.parent / "README.md")]
    sys.exit(main(["figures", *sys.argv[1:], *options]))
