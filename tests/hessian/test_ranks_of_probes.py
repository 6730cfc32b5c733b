"""Two processes share the samples of a probe and see the Hessian that one sees."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.xdist_group(__name__)  # a fixture for all of them, made once

SCRIPT = """
import json, sys, torch
import lgn_analysis as lgn
from lgn_analysis.base.distributed import process_group, world
from torch import nn

with process_group("cpu"):
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 2, (37, 8), generator=generator).bool()
    y = torch.randint(0, 3, (37,), generator=generator)
    network = lgn.LogicNetwork(8, 12, 2, 3, 2.0, dtype=torch.float64)
    torch.manual_seed(0)
    general = nn.Sequential(nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    found = {}
    for name, model, data in (
        ("network", network, (x, y)), ("general", general, (x.double(), y))
    ):
        probe = lgn.HessianProbe(model, data, batch_size=20)
        v = torch.linspace(-1, 1, probe.shape[0], dtype=torch.float64)
        auto = probe.trace(n_probes=400)
        found[name] = {
            "product": (probe @ v).tolist(),
            "loss": probe.loss(),
            "gradient": probe.grad().tolist(),
            "trace": [auto.estimate, auto.stderr],
            "exact": float(torch.trace(probe.dense())),
            "hutchinson": probe.trace(method="hutchinson", n_probes=8).estimate,
            "eigs": probe.eigs(k=4).values.tolist(),
        }

    def coupled(outputs, y):
        return nn.functional.cross_entropy(outputs, y) + (outputs * outputs.roll(1, 0)).mean()

    probe = lgn.HessianProbe(network, (x, y), loss_fn=coupled)
    found["coupled"] = {"product": (probe @ torch.ones(384).double()).tolist(), "loss": probe.loss()}

    def contrastive(outputs, y):
        unit = nn.functional.normalize(outputs)
        return nn.functional.cross_entropy(unit @ unit.T, torch.arange(len(unit)))

    def penalised(outputs, y):
        penalty = sum(p.square().sum() for p in general.parameters())
        return nn.functional.cross_entropy(outputs, y) + penalty

    weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 20.0]).double())
    sorted_y = y.sort().values
    for name, model, inputs, loss_fn, size in (
        ("one loss", general, x.double(), contrastive, None),
        ("live", general, x.double(), penalised, 20),
        ("weighted", general, x.double(), weighted, 10),
        ("weighted network", network, x, weighted, 10),
    ):
        probe = lgn.HessianProbe(model, (inputs, sorted_y), loss_fn=loss_fn, batch_size=size)
        v = torch.linspace(-1, 1, probe.shape[0], dtype=torch.float64)
        found[name] = {"product": (probe @ v).tolist(), "loss": probe.loss()}
    with open(f"{sys.argv[1]}-{world()[0]}.json", "w") as file:
        json.dump(found, file)
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    script = folder / "probe.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for command, name in (([sys.executable], "one"), (two, "two")):
        done = subprocess.run(
            [*command, str(script), str(folder / name)],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return [
        json.loads((folder / f"{name}.json").read_text()) for name in ("one-0", "two-0", "two-1")
    ]


@pytest.mark.parametrize(
    "kind",
    ["network", "general", "coupled", "one loss", "live", "weighted", "weighted network"],
)
def test_products_are_those_of_one_process(results, kind):
    one, *two = (result[kind] for result in results)
    for name in set(one) - {"trace"}:
        assert two[0][name] == two[1][name]
        assert two[0][name] == pytest.approx(one[name], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("kind", ["network", "general"])
def test_traces_are_estimates_of_one_number(results, kind):
    one, *two = (result[kind] for result in results)
    assert two[0]["trace"] == two[1]["trace"]
    for estimate, stderr in (one["trace"], two[0]["trace"]):
        assert abs(estimate - one["exact"]) < 5 * stderr  # false-alarm rate 6e-7
    if kind == "network":  # as sure with two processes as with one
        assert two[0]["trace"][1] == pytest.approx(one["trace"][1], rel=0.2)
