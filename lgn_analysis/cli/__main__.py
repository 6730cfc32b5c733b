"""``python -m lgn_analysis.cli``, which ``torchrun`` needs."""

import sys

from lgn_analysis.cli import main

if __name__ == "__main__":
    sys.exit(main())
