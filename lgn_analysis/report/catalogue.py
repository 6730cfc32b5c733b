"""Which experiments there are, which claims each decides, and which runs each needs."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.experiments.discovery import experiments


def experiment_names() -> list[str]:
    """Return the experiments in the order of their claims; those that decide none come last."""
    found = experiments()

    def place(name: str) -> tuple[str, int, str]:
        letter, number, _ = min(
            (claim_order(claim.id) for claim in found[name].CLAIMS), default=("~", 0, "")
        )
        return letter, number, name  # "~" comes behind every letter

    return sorted(found, key=place)


def experiment(name: str) -> Any:
    """Return the module of an experiment."""
    return experiments()[name]


def plot(name: str) -> ModuleType:
    """Return the module that draws an experiment's frame."""
    return importlib.import_module(f"lgn_analysis.plots.claims.{name}")


def numbers_of(name: str) -> list[str]:
    """Return the claims that an experiment decides, as ``C1``, without the letters of measures."""
    return list(dict.fromkeys(claim.number for claim in experiment(name).CLAIMS))


def summary_of(module: ModuleType) -> str:
    """Return what the first line of a module's docstring says behind its ``C2: ``."""
    line = (inspect.getdoc(module) or "").split("\n", 1)[0].rstrip(".")
    summary = line.partition(": ")[2] or line
    return summary[:1].upper() + summary[1:]


def explanation_of(module: ModuleType) -> list[str]:
    """Return the paragraphs below the first line of a module's docstring."""
    paragraphs = (inspect.getdoc(module) or "").split("\n\n")[1:]
    return [" ".join(paragraph.split()) for paragraph in paragraphs]


def question(number: str) -> str:
    """Return what is asked of a claim, by the experiment that decides it; empty without one."""
    names = [name for name in experiment_names() if number in numbers_of(name)]
    return summary_of(experiment(names[0])) if names else ""


def select(claims: Sequence[str]) -> list[str]:
    """Return the experiments that decide the claims; all of them where none is named.

    Raises:
        InvalidInputError: no experiment decides one of the claims.
    """
    names = experiment_names()
    if not claims:
        return names
    decided = {name: set(numbers_of(name)) for name in names}
    available = sorted(set().union(*decided.values()), key=claim_order)
    for claim in claims:
        if claim not in available:
            raise InvalidInputError(
                f"no experiment decides {claim!r}; choose from {', '.join(available)}"
            )
    return [name for name in names if decided[name] & set(claims)]


def claim_order(identifier: str) -> tuple[str, int, str]:
    """Return the place of a claim in the ledger: C2 before C10, then M1, its measures by name."""
    return identifier[0], int(identifier.split()[0][1:]), identifier
