"""Every notebook runs from top to bottom, in a fresh kernel, without a warning to its reader."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

# One after the other: two kernels that look for free ports at once may find the same.
pytestmark = pytest.mark.xdist_group("notebooks")
FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
# Those that reproduce share one cache of runs, so they take their turns.
SHARING = [path for path in NOTEBOOKS if "report.reproduce(" in path.read_text(encoding="utf-8")]
COMPILING = "compiling the CPU kernels of lgn_analysis"
"""What whoever calls a kernel first on a machine is told, once."""
ALONE = [path for path in NOTEBOOKS if path not in SHARING]


def test_there_are_notebooks():
    assert ALONE
    assert SHARING


@pytest.mark.parametrize("path", ALONE, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path):
    run(path)


def test_the_notebooks_that_reproduce_run_from_top_to_bottom(monkeypatch):
    """By the smallest preset, with all its runs where no earlier call has left them in the cache."""
    monkeypatch.setenv("LGN_ANALYSIS_PRESET", "smoke")
    for path in SHARING:
        run(path)


@pytest.mark.slow
def test_the_notebooks_of_the_quick_preset_run_from_top_to_bottom():
    """As they are read, with all its runs."""
    for path in SHARING:
        run(path)


def run(path):
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(FOLDER)}})
    client.execute()
    streams = [
        output
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stderr"
        if not output.text.startswith(COMPILING)
    ]
    assert streams == []
    drawing = [cell for cell in notebook.cells if "plt.subplots" in cell.source]
    assert drawing
    for cell in drawing:
        assert any("image/png" in output.get("data", {}) for output in cell.outputs), cell.source
