"""``report.html``: every claim beside its figure, in one self-contained file."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final

from lgn_analysis.experiments import Verdict
from lgn_analysis.report.catalogue import (
    experiment,
    experiment_names,
    numbers_of,
    plot,
    question,
    summary_of,
)
from lgn_analysis.report.ledger import all_facts, all_failures, presets_text
from lgn_analysis.report.markup import (
    explanation_of,
    image,
    link,
    marked,
    pairs,
    table,
    text,
)
from lgn_analysis.report.provenance import Facts
from lgn_analysis.report.wording import format_effect, format_interval, format_smallest, tally

REPORT: Final = "report.html"

_PAPER: Final = (
    "Yousefi, Plesner, Aczel, Wattenhofer: <em>Mind the Gap: Removing the Discretization Gap in "
    'Differentiable Logic Gate Networks</em>, NeurIPS 2025, <a href="https://arxiv.org/abs/'
    '2506.07500">arXiv 2506.07500</a>'
)


def write_report(verdicts: Sequence[Verdict], folder: Path) -> Path:
    """Write ``report.html`` from verdicts, and from the JSONs and PNGs in a folder."""
    path = folder / REPORT
    path.write_text(page(verdicts, folder), encoding="utf-8")
    return path


def page(verdicts: Sequence[Verdict], folder: Path) -> str:
    """Return the report: equal verdicts, JSONs and PNGs give equal bytes."""
    facts = all_facts(folder)
    numbers = list(dict.fromkeys(verdict.claim.id.split()[0] for verdict in verdicts))
    shown: dict[str, str] = {}
    sections = [
        _claim(number, [v for v in verdicts if v.claim.id.split()[0] == number], folder, shown)
        for number in numbers
    ]
    style = files("lgn_analysis.report").joinpath("style.css").read_text(encoding="utf-8")
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Mind the Gap, measured again</title>\n<style>\n{style}</style>\n</head>\n<body>",
        _header(facts),
        "<main>",
        _summary(verdicts),
        *sections,
        _other_figures(folder, shown),
        _failures(facts),
        _how(facts),
        "</main>\n</body>\n</html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _header(facts: dict[str, Facts]) -> str:
    return (
        "<header>\n<h1>Mind the Gap, measured again</h1>\n"
        f'<p class="lead">The claims of {_PAPER}, and some that it raises, measured over seeds. '
        f"{marked(presets_text(facts.values()))} A verdict speaks of the networks, data and steps "
        "that it was measured on, which stand beside it, and of no others.</p>\n</header>"
    )


def _summary(verdicts: Sequence[Verdict]) -> str:
    rows = []
    for verdict in verdicts:
        number = verdict.claim.id.split()[0]
        untested = verdict.outcome == "untested"
        here = text(verdict.reason if untested else format_effect(verdict))
        rows.append(
            (
                link(f"#{number}", verdict.claim.id),
                _outcome(verdict),
                text(verdict.claim.title),
                here,
                "" if untested else str(verdict.n),
                text(verdict.claim.paper),
            )
        )
    return (
        f'<section id="summary">\n<h2>Summary</h2>\n<p>{tally(verdicts)}.</p>\n'
        + table(("claim", "verdict", "", "here", "n", "the paper"), rows)
        + '\n<p class="question">A positive difference, or a factor above 1, is what is claimed; '
        "in brackets the interval over seeds. <b>Holds</b>: the interval excludes no effect, and "
        "the estimate is large enough to count. <b>Fails</b>: it excludes an effect that counts. "
        "<b>Inconclusive</b>: neither, or too few trained networks. Metric, target, null and "
        "smallest effect that counts were fixed before the runs.</p>\n</section>"
    )


def _claim(number: str, verdicts: Sequence[Verdict], folder: Path, shown: dict[str, str]) -> str:
    names = [name for name in experiment_names() if number in numbers_of(name)]
    heading = question(number) or verdicts[0].claim.title
    explained = "\n".join(explanation_of(experiment(name)) for name in names)
    figures = "\n".join(_figure(name, folder, number, shown) for name in names)
    articles = "\n".join(_article(verdict, folder) for verdict in verdicts)
    return (
        f'<section id="{number}">\n<h2>{number}: {text(heading)}</h2>\n{explained}\n'
        f'<div class="pair">\n<div>\n{articles}\n</div>\n<div>\n{figures}\n</div>\n</div>\n'
        "</section>"
    )


def _article(verdict: Verdict, folder: Path) -> str:
    claim = verdict.claim
    title = f"<h3>{text(claim.id)}: {text(claim.title)} {_outcome(verdict)}</h3>"
    facts = [("the paper", text(claim.paper))]
    if verdict.outcome == "untested":
        facts.append(("why", text(verdict.reason)))
        return f"<article>\n{title}\n{pairs(facts)}\n</article>"
    facts += [
        ("here", f"<b>{text(format_effect(verdict))}</b>, {text(format_interval(verdict))}"),
        ("why", text(verdict.reason)),
        ("measured", text(claim.metric)),
        ("counts from", text(format_smallest(verdict))),
        ("scale", text(verdict.scale)),
        ("rows", _files(folder, verdict.source)),
    ]
    return f"<article>\n{title}\n{pairs(facts)}\n</article>"


def _figure(name: str, folder: Path, place: str, shown: dict[str, str]) -> str:
    """Return a figure; one that stands under an earlier claim already is linked to."""
    path = folder / f"{name}.png"
    if not path.is_file():
        return ""
    if name in shown:
        return f"<p>Its figure stands under {link(f'#{shown[name]}', shown[name])}.</p>"
    shown[name] = place
    said = summary_of(plot(name))
    return (
        f'<figure>\n<div class="scroll">{image(path, said)}</div>\n'
        f"<figcaption>{text(said)}. "
        f"{_files(folder, f'{name}.csv', f'{name}.effects.csv', f'{name}.pdf')}</figcaption>\n"
        "</figure>"
    )


def _other_figures(folder: Path, shown: dict[str, str]) -> str:
    names = [name for name in experiment_names() if name not in shown]
    figures = [(name, _figure(name, folder, "other", shown)) for name in names]
    parts = [
        f"<h3>{text(summary_of(experiment(name)))}</h3>\n{explanation_of(experiment(name))}\n{drawn}"
        for name, drawn in figures
        if drawn
    ]
    if not parts:
        return ""
    return '<section id="other">\n<h2>Without a verdict</h2>\n' + "\n".join(parts) + "\n</section>"


def _failures(facts: dict[str, Facts]) -> str:
    rows = [
        (text(row["label"]), text(row["error"]), text(row["when"]), f"<code>{row['key']}</code>")
        for row in all_failures(facts.values())
    ]
    if not rows:
        return ""
    return (
        '<section id="failures">\n<h2>Runs that failed</h2>\n'
        "<p>They are left out above; the next <code>lgn-analysis reproduce</code> tries them "
        "again. <code>KEY.failure.json</code> in the cache holds what was raised.</p>\n"
        + table(("run", "error", "when", "key"), rows)
        + "\n</section>"
    )


def _how(facts: dict[str, Facts]) -> str:
    if not facts:
        return ""
    made = {name: one for name, one in facts.items() if one["runs"]}
    commands = list(dict.fromkeys(one["command"] for one in made.values()))
    alike: dict[tuple[str, ...], list[str]] = {}
    for name, one in made.items():
        row = (
            text(one["preset"]),
            text(", ".join(str(seed) for seed in one["seeds"])),
            f"<code>{text(one['commit'])}</code>",
            text(one["device"]),
            text(f"Python {one['python']}, {_versions(one)}"),
        )
        alike.setdefault(row, []).append(name)
    rows = [(text(", ".join(names)), *row) for row, names in alike.items()]
    said = "\n".join(text(command) for command in commands)
    return (
        '<section id="reproduce">\n<h2>How to reproduce</h2>\n'
        f"<p>These commands made the CSVs:</p>\n<pre>{said}</pre>\n"
        "<p><code>make figures</code> makes figures, ledger and this page again from the CSVs "
        "alone.</p>\n"
        + table(("rows of", "preset", "seeds", "commit", "device", "versions"), rows)
        + "\n</section>"
    )


def _versions(facts: Facts) -> str:
    return ", ".join(f"{package} {version}" for package, version in facts["versions"].items())


def _outcome(verdict: Verdict) -> str:
    return f'<span class="outcome {verdict.outcome}">{verdict.outcome}</span>'


def _files(folder: Path, *names: str) -> str:
    return " · ".join(link(name, name) for name in names if name and (folder / name).is_file())
