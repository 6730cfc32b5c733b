"""The commands: ``lgn-analysis train | evaluate | probe | reproduce | figures | datasets``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import tyro

from lgn_analysis.cli.inspecting import datasets, evaluate, probe
from lgn_analysis.cli.reproducing import figures, reproduce
from lgn_analysis.cli.training import train
from lgn_analysis.errors import LGNError

COMMANDS: dict[str, Any] = {
    "train": train,
    "evaluate": evaluate,
    "probe": probe,
    "reproduce": reproduce,
    "figures": figures,
    "datasets": datasets,
}


def main(args: Sequence[str] | None = None) -> int:
    """Run a command; an error of the user is one sentence and exit status 2."""
    try:
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="lgn-analysis",
            description="Theory and analysis of logic gate networks.",
            args=None if args is None else list(args),
        )
    except LGNError as error:
        print(f"lgn-analysis: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lgn-analysis: stopped; a run directory resumes, a sweep goes on", file=sys.stderr)
        return 130
    return 0
