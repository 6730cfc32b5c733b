"""Is a diagnosis right: do the networks train that it says will, before any training?

    python benchmarks/diagnosis.py

Every way of training that M2 compared, at every depth, on digits and on Fashion-MNIST: what ``lgn.diagnose``
says of the network that seed 0 draws, beside the accuracy that was reached (``adam_epsilon.csv`` in
``figures/`` and ``figures/fashion/``, five seeds). Results go to ``benchmarks/results/``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pandas as pd
from harness import no_options

import lgn_analysis as lgn
from lgn_analysis.experiments.claims.adam_epsilon import ARMS
from lgn_analysis.experiments.presets.cpu import CPU
from lgn_analysis.experiments.presets.fashion import FASHION
from lgn_analysis.experiments.settings import Preset

ROOT: Final = Path(__file__).parent.parent


def main() -> None:
    """Diagnose the networks of M2 and write a row each."""
    no_options(__doc__)
    parts = [diagnoses(CPU, ROOT / "figures"), diagnoses(FASHION, ROOT / "figures" / "fashion")]
    table = pd.concat(parts, ignore_index=True)
    print(table.to_string(index=False))
    keys = ["dataset", "says_it_trains"]
    print(table.groupby(keys)["accuracy_mean"].agg(["count", "min", "max"]))
    table.to_csv(ROOT / "benchmarks" / "results" / "diagnosis.csv", index=False)


def diagnoses(preset: Preset, folder: Path) -> pd.DataFrame:
    """Return what is said of the networks of a preset, beside the accuracy that they reached."""
    history = pd.read_csv(folder / "adam_epsilon.csv")
    ends = history[(history["split"] == "test") & (history["step"] == history["steps"])]
    reached = ends.groupby(["arm", "depth"])["discrete_accuracy"].agg(["mean", "min", "max"])
    rows = []
    for sweep in preset.optimisers:
        setting = sweep.setting
        data = lgn.load_dataset(setting.dataset, setting.thresholds)
        for arm in ARMS:
            for run in arm.runs(sweep):
                if run.training.seed:
                    continue
                model, steps = run.network.build(data), run.training.steps
                found = lgn.diagnose(model, data, steps=steps, eps=arm.eps)
                now = found.changes.iloc[0]
                rows.append(
                    {
                        "dataset": setting.dataset,
                        "arm": arm.name,
                        "depth": run.network.depth,
                        "says_it_trains": found.trains,
                        "still_layers": now["still_layers"],
                        "fewest_steps": now["fewest_steps"],
                        **reached.loc[arm.name, run.network.depth].add_prefix("accuracy_"),
                    }
                )
    return pd.DataFrame(rows).sort_values("accuracy_mean", ascending=False)


if __name__ == "__main__":
    main()
