"""From a model to rows: what a run measures beside its history."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lgn_analysis.data import Dataset
from lgn_analysis.experiments.specs import ProbePlan, RunSpec
from lgn_analysis.gates.parametrisations import get_parametrisation
from lgn_analysis.hessian import HessianProbe
from lgn_analysis.metrics import gate_entropy, gate_usage
from lgn_analysis.network import LogicNetwork
from lgn_analysis.theory import (
    gap_anatomy,
    gradient_alignment,
    hard_lemma,
    landscape,
    lemma1,
    signal_propagation,
)
from lgn_analysis.theory.samples import draw_samples
from lgn_analysis.training.stepper import Steps, warm_up

ENTROPY_BINS: Final = 28
"""Bins of 0.1 nats, from 0 to just above ln 16, the entropy of an undecided gate."""
BIN_WIDTH: Final = 0.1
ENTROPY_COLUMNS: Final = tuple(f"entropy_{index:02d}" for index in range(ENTROPY_BINS))

Samples = tuple[Tensor, Tensor]


def usage_table(model: LogicNetwork, data: Dataset) -> pd.DataFrame:
    """Return gate usage by layer, with the histogram of entropies in :data:`ENTROPY_COLUMNS`."""
    edges = BIN_WIDTH * np.arange(ENTROPY_BINS + 1)
    rows = []
    for layer in model.layers:
        logits = get_parametrisation(layer.parametrisation).gate_logits(layer.logits)
        counts, _ = np.histogram(gate_entropy(logits).cpu().numpy(), bins=edges)
        rows.append(counts / layer.n_out)
    shares = pd.DataFrame(rows, columns=list(ENTROPY_COLUMNS))
    return pd.concat([gate_usage(model, data), shares], axis=1)


def trace_table(model: LogicNetwork, samples: Samples, plan: ProbePlan) -> pd.DataFrame:
    """Return the trace of the Hessian of the soft loss, in z and in u = z / tau."""
    probe = HessianProbe(model, samples)
    trace = probe.trace(n_probes=plan.trace_probes)
    tau = model.relaxation.tau
    row = {
        "loss": probe.loss(),
        "trace_z": trace.estimate,
        "trace_z_stderr": trace.stderr,
        "trace_u": trace.estimate * tau**2,
        "trace_u_stderr": trace.stderr * tau**2,
        "n_matvecs": trace.n_matvecs,
    }
    return pd.DataFrame([row])


def density_table(model: LogicNetwork, samples: Samples, plan: ProbePlan) -> pd.DataFrame:
    """Return the quadrature of the spectral density."""
    if not plan.density_probes:
        return pd.DataFrame()
    density = HessianProbe(model, samples).density(
        n_probes=plan.density_probes, steps=plan.density_steps
    )
    return density.to_frame()


def lemma_table(model: LogicNetwork, samples: Samples, plan: ProbePlan) -> pd.DataFrame:
    """Return what noise adds to the soft loss, beside what Lemma 1 says."""
    return lemma1(
        model,
        samples,
        scales=plan.lemma_scales,
        draws=plan.lemma_draws,
        trace_probes=plan.lemma_trace_probes,
        order=plan.lemma_order,
    )


def hard_lemma_table(model: LogicNetwork, samples: Samples, plan: ProbePlan) -> pd.DataFrame:
    """Return the gain of the hard noisy forward and the hard lemma's prediction of it.

    ``lemma_gain`` and ``lemma_prediction`` are those of Lemma 1, of soft gates at scale 1.
    """
    row = hard_lemma(model, samples, draws=plan.hard_lemma_draws)
    lemma = lemma1(
        model,
        samples,
        scales=(1.0,),
        draws=plan.lemma_draws,
        trace_probes=plan.lemma_trace_probes,
        order=2,
    )
    return row.assign(lemma_gain=lemma["gain"], lemma_prediction=lemma["prediction"])


def signal_table(model: LogicNetwork, data: Dataset, spec: RunSpec) -> pd.DataFrame:
    """Return the signals of each layer, measured and predicted."""
    plan, training = spec.probes, spec.training
    found = signal_propagation(
        model,
        data,
        batches=plan.signal_batches,
        batch_size=training.batch_size,
        draws=plan.signal_draws,
        eps=training.eps,
        lr=training.lr,
        seed=training.seed,
    )
    return found.to_frame().drop(columns="relaxation")


def alignment_table(model: LogicNetwork, data: Dataset, spec: RunSpec) -> pd.DataFrame:
    """Return how the mean gradient over noise draws, of one batch, is aligned with the noise-free one."""
    draws, training = spec.probes.alignment_draws, spec.training
    if not draws:
        return pd.DataFrame()
    batch = draw_samples(data, "train", training.batch_size, training.seed)
    return gradient_alignment(model, batch, draws=draws, seed=training.seed)


def anatomy_table(model: LogicNetwork, samples: Samples, plan: ProbePlan) -> pd.DataFrame:
    """Return the states between soft and discrete; those of one layer with its flipped bits."""
    anatomy = gap_anatomy(model, samples, split="train")
    layers = anatomy.layers.drop(columns="n_gates").assign(scheme="alone")
    return anatomy.states.merge(layers, on=["scheme", "layer"], how="left")


def landscape_table(
    model: LogicNetwork, samples: Samples, plan: ProbePlan, *, seed: int
) -> pd.DataFrame:
    """Return the soft loss along random directions and the top eigenvector, and on a plane.

    ``kind`` is filter, eigen or plane; ``length`` is the distance in z of one unit of ``x``.
    """
    if not plan.landscape_directions:
        return pd.DataFrame()
    wide = copy.deepcopy(model).double()  # second differences are small differences of losses
    parts = []
    for direction in range(plan.landscape_directions):
        line = landscape(
            wide,
            samples,
            directions="filter",
            dims=1,
            grid=plan.landscape_grid,
            seed=seed + 1000 * direction,
        )
        parts.append(_line(line, kind="filter", direction=direction))
    top = landscape(wide, samples, directions="eigen", dims=1, grid=plan.landscape_grid, seed=seed)
    parts.append(_line(top, kind="eigen", direction=0))
    if plan.plane_grid:
        plane = landscape(
            model, samples, directions="filter", dims=2, grid=plan.plane_grid, seed=seed
        )
        parts.append(_line(plane, kind="plane", direction=0))
    return pd.concat(parts, ignore_index=True)


def _line(found: Any, *, kind: str, direction: int) -> pd.DataFrame:
    return found.to_frame().assign(
        kind=kind,
        direction=direction,
        length=found.lengths[0],
        eigenvalue=found.eigenvalues[0],
    )


def timing_table(spec: RunSpec, data: Dataset) -> pd.DataFrame:
    """Return a row a turn: ``method``, ``round``, ``steps`` and the ``seconds`` they took."""
    plan, training = spec.timing, spec.training
    assert plan is not None
    loops: dict[str, Steps] = {}
    taken = dict.fromkeys(plan.methods, 0)
    for method in plan.methods:
        model = replace(spec.network, relaxation=method).build(data).to(spec.device)
        warm_up(model)
        loops[method] = Steps(
            model,
            data.x_train,
            data.y_train,
            batch_size=training.batch_size,
            lr=training.lr,
            seed=training.seed,
            eps=training.eps,
            betas=training.betas,
            weight_decay=training.weight_decay,
            learning_rates=training.learning_rates,
            draws=training.draws_per_step,
        )
    rows = []

    def turn(method: str, steps: int) -> float:
        _wait(loops[method].model)
        start = time.perf_counter()
        loops[method].advance(taken[method], taken[method] + steps, lambda n: None)
        _wait(loops[method].model)
        taken[method] += steps
        return time.perf_counter() - start

    for method in plan.methods:
        turn(method, plan.warm_up)
    for number in range(plan.rounds):
        order: Iterable[str] = plan.methods if number % 2 == 0 else reversed(plan.methods)
        for method in order:
            rows.append(
                {
                    "method": method,
                    "round": number,
                    "turn_steps": plan.steps,
                    "seconds": turn(method, plan.steps),
                }
            )
    return pd.DataFrame(rows)


def _wait(model: LogicNetwork) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
