"""Is a diagnosis right: do the networks train that it says will, before any training?

    python benchmarks/diagnosis.py

Every way of training that M2 compared, at every depth: what ``lgn.diagnose`` says of the network that seed 0
draws, beside the accuracy that was reached (``figures/adam_epsilon.csv``, five seeds). Results go to
``benchmarks/results/``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pandas as pd
from harness import no_options

import lgn_analysis as lgn
from lgn_analysis.experiments.claims.adam_epsilon import ARMS
from lgn_analysis.experiments.presets.cpu import CPU

ROOT: Final = Path(__file__).parent.parent


def main() -> None:
    """Diagnose the networks of M2 and write a row each."""
    no_options(__doc__)
    history = pd.read_csv(ROOT / "figures" / "adam_epsilon.csv")
    ends = history[(history["split"] == "test") & (history["step"] == history["steps"])]
    reached = ends.groupby(["arm", "depth"])["discrete_accuracy"].agg(["mean", "min", "max"])
    data = lgn.load_dataset("digits")
    rows = []
    for sweep in CPU.optimisers:
        for arm in ARMS:
            for run in arm.runs(sweep):
                if run.training.seed:
                    continue
                found = lgn.diagnose(
                    run.network.build(data), data, steps=run.training.steps, eps=arm.eps
                )
                now = found.changes.iloc[0]
                rows.append(
                    {
                        "arm": arm.name,
                        "depth": run.network.depth,
                        "says_it_trains": found.trains,
                        "still_layers": now["still_layers"],
                        "fewest_steps": now["fewest_steps"],
                        **reached.loc[arm.name, run.network.depth].add_prefix("accuracy_"),
                    }
                )
    table = pd.DataFrame(rows).sort_values("accuracy_mean", ascending=False)
    print(table.to_string(index=False))
    print(table.groupby("says_it_trains")["accuracy_mean"].agg(["count", "min", "max"]))
    table.to_csv(ROOT / "benchmarks" / "results" / "diagnosis.csv", index=False)


if __name__ == "__main__":
    main()
