"""Draw the figures of this folder again, from the CSVs beside this script alone.

    python figures/make_figures.py                 # all
    python figures/make_figures.py gap lemma_1     # some

The CSVs are made by ``lgn-analysis reproduce``.
"""

import sys
from pathlib import Path

from lgn_analysis.cli import main

if __name__ == "__main__":
    sys.exit(main(["figures", *sys.argv[1:], "--folder", str(Path(__file__).parent)]))
