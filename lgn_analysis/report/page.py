"""``report.html``: every claim beside its figure, in one self-contained file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lgn_analysis.experiments import Verdict
from lgn_analysis.report.catalogue import (
    experiment,
    experiment_names,
    explanation_of,
    numbers_of,
    plot,
    question,
    summary_of,
)
from lgn_analysis.report.ledger import all_facts, all_failures, presets_text
from lgn_analysis.report.provenance import Facts
from lgn_analysis.report.templating import TEMPLATES

REPORT: Final = "report.html"


@dataclass(frozen=True)
class Drawing:
    """A figure in the page.

    Attributes:
        caption: what it shows.
        png: the image in base64.
        files: where its rows may be, and itself for print.
        section: the section that shows it; later ones link to it.
    """

    caption: str
    png: str
    files: tuple[str, ...]
    section: str


@dataclass(frozen=True)
class Section:
    """A claim with all its measures, or an experiment without a verdict.

    Attributes:
        name: the claim's number, ``C1``; also the anchor.
        heading: the question.
        explanation: how it is answered, in paragraphs.
        verdicts: one for each measure.
        drawings: the figures.
    """

    name: str
    heading: str
    explanation: list[str]
    verdicts: list[Verdict]
    drawings: list[Drawing]


@dataclass(frozen=True)
class Origin:
    """What made the rows of some experiments, in words."""

    preset: str
    seeds: str
    commit: str
    device: str
    versions: str


def write_report(verdicts: Sequence[Verdict], folder: Path) -> Path:
    """Write ``report.html`` from verdicts, and from the JSONs and PNGs in a folder."""
    path = folder / REPORT
    path.write_text(page(verdicts, folder), encoding="utf-8")
    return path


def page(verdicts: Sequence[Verdict], folder: Path) -> str:
    """Return the report: equal verdicts, JSONs and PNGs give equal bytes."""
    facts = all_facts(folder)
    made = {name: one for name, one in facts.items() if one["runs"]}
    drawings: dict[str, Drawing] = {}
    numbers = dict.fromkeys(verdict.claim.number for verdict in verdicts)
    claims = [_claim(number, verdicts, folder, drawings) for number in numbers]
    rest = [name for name in experiment_names() if name not in drawings]
    return TEMPLATES.get_template("report.html.j2").render(
        presets=presets_text(facts.values()),
        verdicts=verdicts,
        claims=claims,
        others=[other for name in rest if (other := _other(name, folder, drawings)).drawings],
        failures=all_failures(facts.values()),
        facts=facts,
        commands=list(dict.fromkeys(one["command"] for one in made.values())),
        origins=_origins(made),
        present={path.name for path in folder.iterdir()},
    )


def _claim(
    number: str, verdicts: Sequence[Verdict], folder: Path, drawings: dict[str, Drawing]
) -> Section:
    names = [name for name in experiment_names() if number in numbers_of(name)]
    own = [verdict for verdict in verdicts if verdict.claim.number == number]
    return Section(
        name=number,
        heading=question(number) or own[0].claim.title,
        explanation=[text for name in names for text in explanation_of(experiment(name))],
        verdicts=own,
        drawings=_draw(names, folder, number, drawings),
    )


def _other(name: str, folder: Path, drawings: dict[str, Drawing]) -> Section:
    module = experiment(name)
    drawn = _draw([name], folder, "other", drawings)
    return Section("other", summary_of(module), explanation_of(module), [], drawn)


def _draw(
    names: Sequence[str], folder: Path, section: str, drawings: dict[str, Drawing]
) -> list[Drawing]:
    """Return the figures of experiments, and note which section shows them first."""
    found = [name for name in names if (folder / f"{name}.png").is_file()]
    for name in found:
        if name not in drawings:
            drawings[name] = Drawing(
                caption=summary_of(plot(name)),
                png=base64.b64encode((folder / f"{name}.png").read_bytes()).decode(),
                files=(f"{name}.csv", f"{name}.effects.csv", f"{name}.pdf"),
                section=section,
            )
    return [drawings[name] for name in found]


def _origins(made: dict[str, Facts]) -> dict[Origin, list[str]]:
    """Return which experiments' rows have the same origin."""
    alike: dict[Origin, list[str]] = {}
    for name, facts in made.items():
        versions = [f"{package} {version}" for package, version in facts["versions"].items()]
        origin = Origin(
            preset=facts["preset"],
            seeds=", ".join(str(seed) for seed in facts["seeds"]),
            commit=facts["commit"],
            device=facts["device"],
            versions=", ".join([f"Python {facts['python']}", *versions]),
        )
        alike.setdefault(origin, []).append(name)
    return alike
