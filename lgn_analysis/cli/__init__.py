"""The commands: ``lgn-analysis train | evaluate | probe | diagnose | convert | reproduce | figures | datasets``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

from lgn_analysis.base.errors import LGNError
from lgn_analysis.cli.converting import convert
from lgn_analysis.cli.inspecting import datasets, evaluate, probe
from lgn_analysis.cli.parsing import parse
from lgn_analysis.cli.reproducing import figures, reproduce


def train() -> None:
    """Train a logic gate network and write a run directory."""


def diagnose() -> None:
    """Say whether a network will train, which layers stand still, and what to change."""


COMMANDS: dict[str, Any] = {
    "train": train,  # in their place stand the real ones, which import torch, where they are called for
    "diagnose": diagnose,
    "evaluate": evaluate,
    "probe": probe,
    "convert": convert,
    "reproduce": reproduce,
    "figures": figures,
    "datasets": datasets,
}


def main(args: Sequence[str] | None = None) -> int:
    """Run a command; an error of the user or of the system is one sentence and exit status 2."""
    try:
        words = sys.argv[1:] if args is None else list(args)
        commands = dict(COMMANDS)
        if words[:1] in (["train"], ["diagnose"]):
            module = importlib.import_module("lgn_analysis.cli.training")
            commands[words[0]] = getattr(module, words[0])
        parse(commands, words, "Theory and analysis of logic gate networks.")()
    except LGNError as error:
        print(f"lgn-analysis: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"lgn-analysis: {where}{error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        message = str(stop) or "stopped; a run directory resumes, a sweep goes on"
        print(f"lgn-analysis: {message}", file=sys.stderr)
        return 130
    return 0
