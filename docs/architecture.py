"""Draw the floors of the package from its imports: ``docs/architecture.svg``.

Floors are those of the import contract in ``pyproject.toml``, boxes the entries of the package's top
level, with what each holds. An arrow is a direct import between two boxes; one that a path of other
arrows implies is left out (the transitive reduction). Run by ``make architecture``.
"""

from __future__ import annotations

import textwrap
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Final, NamedTuple

import grimp
import matplotlib as mpl
import networkx as nx
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

ROOT: Final = Path(__file__).parents[1]
PACKAGE: Final = "lgn_analysis"
PICTURE: Final = Path(__file__).with_name("architecture.svg")

HEIGHT: Final = 0.66
"""Of a box; floors are one apart."""
LINE: Final = 0.135
"""Of a line of what a box holds."""
CHARACTERS: Final = 165
"""Of a line as wide as the picture."""
INK: Final = "#1f2a44"
PAPER: Final = ("#f4f6fa", "#ffffff")


class Box(NamedTuple):
    """Where a box stands: its centre and width, as parts of the picture's width."""

    x: float
    width: float


# Chosen by hand, so that an arrow that skips floors passes beside their boxes.
PLACES: Final = {
    "cli": Box(0.50, 0.34),
    "report": Box(0.50, 0.66),
    "experiments": Box(0.30, 0.46),
    "plots": Box(0.83, 0.26),
    "theory": Box(0.54, 0.45),
    "training": Box(0.20, 0.32),
    "hessian": Box(0.50, 0.25),
    "checkpoints": Box(0.20, 0.20),
    "interop": Box(0.50, 0.24),
    "metrics": Box(0.83, 0.26),
    "network": Box(0.35, 0.40),
    "data": Box(0.83, 0.32),
    "kernels": Box(0.35, 0.40),
    "gates": Box(0.35, 0.40),
    "base": Box(0.50, 0.84),
}


def floors() -> list[list[str]]:
    """Return the boxes of each floor, lowest floor first, as the import contract has them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = settings["tool"]["importlinter"]["contracts"][0]
    return [line.replace("|", " ").replace(":", " ").split() for line in contract["layers"][::-1]]


def arrows(graph: grimp.ImportGraph) -> list[tuple[str, str]]:
    """Return which box imports which, without what a path of other arrows implies."""
    edges = set()
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            ends = [name.split(".")[1] for name in (module, imported) if "." in name]
            if len(set(ends)) == 2:
                edges.add((ends[0], ends[1]))
    return sorted(nx.transitive_reduction(nx.DiGraph(sorted(edges))).edges)


def draw(ax: Axes, graph: grimp.ImportGraph) -> None:
    """Draw floors, boxes and arrows."""
    rows = {name: floor for floor, names in enumerate(floors()) for name in names}
    top = max(rows.values())
    for floor in range(top + 1):
        ax.axhspan(floor - 0.5, floor + 0.5, color=PAPER[floor % 2], lw=0, zorder=0)
        ax.text(0.005, floor, str(floor), va="center", fontsize=9, color=INK, weight="bold")
    for name, floor in rows.items():
        _box(ax, name, floor, held(graph, name))
    _arrows(ax, arrows(graph), rows)
    ax.set(xlim=(0, 1), ylim=(-0.5, top + 0.5))
    ax.axis("off")


def _box(ax: Axes, name: str, floor: int, contents: list[str]) -> None:
    place = PLACES[name]
    corner = (place.x - place.width / 2, floor - HEIGHT / 2)
    shape = FancyBboxPatch(
        corner, place.width, HEIGHT, boxstyle="round,pad=0,rounding_size=0.012", lw=0.9
    )
    shape.set(facecolor="white", edgecolor=INK, zorder=3, mutation_aspect=8)
    ax.add_patch(shape)
    lines = _wrapped(", ".join(contents), int(place.width * CHARACTERS))
    title = floor + LINE * len(lines) / 2
    written = {"ha": "center", "color": INK, "zorder": 4}
    ax.text(place.x, title, name, va="center", fontsize=9, weight="bold", **written)
    ax.text(
        place.x, title - 0.11, "\n".join(lines), va="top", fontsize=5.8, linespacing=1.15, **written
    )


def _wrapped(text: str, width: int) -> list[str]:
    """Return the fewest lines of at most ``width`` characters, as even as they can be."""
    fewest = len(textwrap.wrap(text, width))
    breadths = range(max(map(len, text.split()), default=1), width + 1)
    wrapped = (textwrap.wrap(text, breadth) for breadth in breadths)
    return next(lines for lines in wrapped if len(lines) == fewest)


def held(graph: grimp.ImportGraph, name: str) -> list[str]:
    """Return what a box holds: modules, and folders with a slash."""
    children = sorted(graph.find_children(f"{PACKAGE}.{name}"))
    return [
        child.rsplit(".", 1)[1] + ("/" if graph.find_children(child) else "")
        for child in children
        if not child.endswith("__main__")
    ]


def _arrows(ax: Axes, edges: list[tuple[str, str]], rows: dict[str, int]) -> None:
    """Draw arrows from the lower edges of boxes to upper ones, their ends spread and uncrossed."""
    leaving, entering = defaultdict(list), defaultdict(list)
    for source, target in edges:
        leaving[source].append(target)
        entering[target].append(source)
    for source, target in edges:
        start = _spread(source, sorted(leaving[source], key=lambda n: PLACES[n].x), target)
        end = _spread(target, sorted(entering[target], key=lambda n: PLACES[n].x), source)
        ax.annotate(
            "",
            xy=(end, rows[target] + HEIGHT / 2),
            xytext=(start, rows[source] - HEIGHT / 2),
            arrowprops={
                "arrowstyle": "-|>",
                "color": "#c2572b",
                "lw": 1.0,
                "shrinkA": 0,
                "shrinkB": 1.0,
            },
            zorder=5,
        )


def _spread(box: str, others: list[str], other: str) -> float:
    place = PLACES[box]
    return place.x + place.width * 0.8 * ((others.index(other) + 1) / (len(others) + 1) - 0.5)


def main() -> None:
    """Draw the picture and write it."""
    # No date and no random names inside: equal imports make equal files.
    with mpl.rc_context({"svg.hashsalt": PACKAGE, "font.family": "DejaVu Sans"}):
        figure, ax = plt.subplots(figsize=(7.2, 7.6), layout="constrained")
        draw(ax, grimp.build_graph(PACKAGE, cache_dir=None))
        figure.savefig(PICTURE, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main()
