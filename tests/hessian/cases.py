"""Matrices and modules with known curvature, shared by the tests."""

import torch
from torch import nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

import lgn_analysis as lgn


def symmetric(eigenvalues, *, seed=0, dtype=torch.float64):
    """A matrix with exactly these eigenvalues and a random eigenbasis."""
    values = torch.as_tensor(eigenvalues, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.randn(len(values), len(values), generator=generator, dtype=torch.float64)
    basis, _ = torch.linalg.qr(gaussian)
    return (basis @ torch.diag(values) @ basis.T).to(dtype)


SPECTRA = {
    "identity": [1.0] * 40,
    "zero": [0.0] * 40,
    "rank-deficient": [5.0, 3.0, -2.0, 1.0] + [0.0] * 60,
    "clustered": [1.0 + 1e-4 * i for i in range(20)] + [-3.0] * 20,
    "indefinite": [(-1) ** i * 2.0 ** (-i / 4) for i in range(60)],
    "multiple ends": [4.0, 4.0, 4.0] + [0.5] * 30 + [-2.0, -2.0],
}


def network(*, tau=1.0, dtype=torch.float64, relaxation=lgn.GumbelST, seed=0):
    return lgn.LogicNetwork(8, 12, 2, 3, 2.0, relaxation=relaxation(tau), seed=seed, dtype=dtype)


def bits(n=13, n_features=8, n_classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 2, (n, n_features), generator=generator).bool()
    return x, torch.randint(0, n_classes, (n,), generator=generator)


def flat_loss(model, x, y):
    """The soft loss as a function of one flat vector of logits, by plain autograd."""
    shapes = [layer.logits.shape for layer in model.layers]

    def loss(flat):
        parts = flat.split([shape.numel() for shape in shapes])
        names = [f"layers.{index}.logits" for index in range(len(shapes))]
        params = {n: p.reshape(s) for n, p, s in zip(names, parts, shapes, strict=True)}
        out = torch.func.functional_call(model, params, (x,), {"mode": "soft"})
        return functional.cross_entropy(out, y)

    start = torch.cat([layer.logits.detach().reshape(-1) for layer in model.layers])
    return loss, start


def perceptron(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)


def live_hessian(model, x, y, loss_fn=functional.cross_entropy, params=None):
    """The dense Hessian by two backward passes on the module as it is called, with no probe's help."""
    params = list(model.parameters()) if params is None else params
    value = loss_fn(model(x), y)
    gradient = torch.autograd.grad(value, params, create_graph=True, materialize_grads=True)
    flat = torch.cat([part.reshape(-1) for part in gradient])
    rows = [
        torch.autograd.grad(entry, params, retain_graph=True, materialize_grads=True)
        for entry in flat
    ]
    return torch.stack([torch.cat([part.reshape(-1) for part in row]) for row in rows]).double()


class Diagonal:
    """A diagonal matrix that is too large to be written out."""

    def __init__(self, values):
        self.values = values
        self.shape = (len(values), len(values))
        self.dtype, self.device = values.dtype, values.device
        self.slices = {"all": slice(0, len(values))}

    def matvec(self, v):
        return self.values * v

    def matmat(self, v):
        return self.values[:, None] * v


def peak_bytes(run):
    """The most memory that PyTorch held at once for what ``run()`` made, and its result."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        result = run()
    held = peak = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak, result
