"""Common modules are probed, whatever their kinks, kernels and dtypes, and wrong products never are."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrizations, parametrize

import lgn_analysis as lgn
from lgn_analysis.base.errors import NotDifferentiableError

F64 = torch.float64


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


LABELS = torch.arange(24) % 3


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(2))

    def forward(self, x):
        inner = functional.relu(self.norms[0](self.first(x)))
        return functional.relu(x + self.norms[1](self.second(inner)))


def residual_network(channels=8, blocks=2):
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        *(Residual(channels) for _ in range(blocks)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, 3),
    )


def train_a_little(model, x, y, steps):
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(steps):
        optimiser.zero_grad()
        functional.cross_entropy(model.train()(x), y).backward()
        optimiser.step()
    return model.eval()


class Twice(nn.Module):
    """Some layer between two linear ones, on x [n, 4]."""

    def __init__(self, inner, width=5, out=None):
        super().__init__()
        self.first, self.inner = nn.Linear(4, width), inner
        self.last = nn.Linear(width if out is None else out, 3)

    def forward(self, x):
        return self.last(self.inner(self.first(x)))


class Calls(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.inner, self.last = kind(2, 3, batch_first=True), nn.Linear(3, 3)

    def forward(self, x):
        return self.last(self.inner(x.view(-1, 2, 2))[0][:, -1])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.last = nn.MultiheadAttention(2, 1, batch_first=True), nn.Linear(2, 3)

    def forward(self, x):
        tokens = x.view(-1, 2, 2)
        return self.last(self.inner(tokens, tokens, tokens, need_weights=False)[0].mean(1))


class Patches(nn.Module):
    """A vision transformer of one layer on four patches of four pixels."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(1, 4)
        self.place = nn.Parameter(0.1 * torch.randn(4, 4))
        layer = nn.TransformerEncoderLayer(
            4, 2, 4, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        return self.last(self.encoder(self.embed(x.unsqueeze(-1)) + self.place).mean(1))


class LowRank(nn.Module):
    def __init__(self):
        super().__init__()
        self.left = nn.Parameter(0.3 * torch.randn(5, 1))
        self.right = nn.Parameter(0.3 * torch.randn(1, 4))

    def forward(self, weight):
        return weight + self.left @ self.right


def adapted():
    model = Twice(nn.GELU())
    parametrize.register_parametrization(model.first, "weight", LowRank())
    return model


def old_weight_norm():
    with pytest.warns(FutureWarning, match="deprecated"):
        layer = torch.nn.utils.weight_norm(nn.Linear(5, 5))
    layer(torch.ones(1, 5))  # leaves a tensor with a graph in the module
    return Twice(nn.Sequential(nn.Tanh(), layer))


def pooled():
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)),
        nn.Conv2d(1, 2, 3, padding=2),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


class AsksForFloat32(nn.Module):
    """Casts, and makes tensors of the default dtype."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        hidden = functional.relu(self.first(x.float())).to(torch.float32)
        return self.last(hidden * torch.linspace(0.5, 1.0, 5) + torch.ones(5))


class InsistsOnFloat32(AsksForFloat32):
    def forward(self, x):
        assert self.first.weight.dtype == torch.float32
        return super().forward(x)


def on_edges():
    """Every activation of the hidden layer lies on the kink of its ReLU."""
    model = Twice(nn.ReLU())
    with torch.no_grad():
        model.first.weight.zero_()
        model.first.bias.zero_()
    return model


RIGHT = {
    "ReLU": lambda: Twice(nn.ReLU()),
    "leaky ReLU": lambda: Twice(nn.LeakyReLU(0.1)),
    "PReLU": lambda: Twice(nn.PReLU()),
    "hard swish": lambda: Twice(nn.Hardswish()),
    "hard sigmoid": lambda: Twice(nn.Hardsigmoid()),
    "hard tanh": lambda: Twice(nn.Hardtanh()),
    "ELU": lambda: Twice(nn.ELU()),
    "GELU": lambda: Twice(nn.GELU()),
    "absolute values": lambda: Twice(Calls(torch.abs)),
    "largest": lambda: Twice(Calls(lambda h: torch.maximum(h, h.roll(1, 1) ** 2))),
    "sorted": lambda: Twice(Calls(lambda h: h.sort(1).values.cumsum(1).tanh())),
    "where": lambda: Twice(Calls(lambda h: torch.where(h > 0.1, h**2, -h))),
    "softshrink": lambda: Twice(nn.Softshrink(0.2)),
    "max pooling": pooled,
    "layer norm": lambda: Twice(nn.LayerNorm(5)),
    "RMS norm": lambda: Twice(nn.RMSNorm(5, eps=1e-6)),
    "batch norm in training": lambda: Twice(nn.Sequential(nn.BatchNorm1d(5), nn.ReLU())),
    "all on a kink": on_edges,
    "asks for float32": AsksForFloat32,
    "insists on float32": InsistsOnFloat32,
    "attention": Attention,
    "encoder in training": lambda: Twice(
        nn.Sequential(
            nn.Unflatten(1, (2, 2)),
            nn.TransformerEncoderLayer(2, 1, 3, dropout=0.0, batch_first=True),
            nn.Flatten(),
        ),
        width=4,
    ),
    "encoder": lambda: Twice(
        nn.Sequential(
            nn.Unflatten(1, (2, 2)),
            nn.TransformerEncoderLayer(2, 1, 3, batch_first=True),
            nn.Flatten(),
        ),
        width=4,
    ).eval(),
    "vision transformer": Patches,
    "spectral norm": lambda: Twice(
        nn.Sequential(nn.ReLU(), parametrizations.spectral_norm(nn.Linear(5, 5)))
    ).eval(),
    "adapter": adapted,
    "LSTM": lambda: Recurrent(nn.LSTM),
    "GRU": lambda: Recurrent(nn.GRU),
}


def dense_hessian(model, x, y, loss_fn):
    """By plain double backward on a live float64 copy, on the mathematical attention kernel."""
    model, x = copy.deepcopy(model).double(), x.double()
    y = y.double() if y.is_floating_point() else y
    params = [value for value in model.parameters() if value.requires_grad]
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            loss = loss_fn(model(x), y)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    parts = torch.autograd.grad(loss, params, create_graph=True, materialize_grads=True)
    gradient = torch.cat([part.reshape(-1) for part in parts])
    rows = []
    for entry in gradient:
        row = [torch.zeros_like(value) for value in params]
        if entry.requires_grad:
            row = torch.autograd.grad(entry, params, retain_graph=True, materialize_grads=True)
        rows.append(torch.cat([part.reshape(-1) for part in row]))
    return torch.stack(rows)


def deviation(found, expected):
    return float((found.double() - expected).norm() / expected.norm())


class InFloat64(AsksForFloat32):
    def forward(self, x):
        hidden = functional.relu(self.first(x))
        return self.last(hidden * torch.linspace(0.5, 1.0, 5, dtype=F64) + 1)


@pytest.mark.parametrize("name", RIGHT)
def test_right_modules_are_probed_and_give_the_dense_hessian(name):
    torch.manual_seed(1)
    model, x = RIGHT[name](), normal(24, 4)
    live = model
    if name == "hard sigmoid":  # torch's own has no second derivative
        live = copy.deepcopy(model)
        live.inner = Calls(lambda h: (h + 3).clamp(0, 6) / 6)
    if isinstance(model, AsksForFloat32):
        live = InFloat64()
        live.load_state_dict(model.state_dict())
    expected = dense_hessian(live, x, LABELS, functional.cross_entropy)
    found = lgn.HessianProbe(model, (x, LABELS), check=True).dense()
    assert deviation(found, expected) < 2e-5
    if not isinstance(model, AsksForFloat32):
        wide = lgn.HessianProbe(model.double(), (x.double(), LABELS), check=True).dense()
        assert deviation(wide, expected) < 1e-10


class ByHand(nn.Module):
    """Weight norm in plain operations, on the parameters of a layer that has it."""

    def __init__(self, g, v, bias):
        super().__init__()
        self.bias = nn.Parameter(bias)
        self.g, self.v = nn.Parameter(g), nn.Parameter(v)

    def forward(self, x):
        weight = self.v * (self.g / self.v.square().sum(1, keepdim=True).sqrt())
        return functional.linear(x, weight, self.bias)


@pytest.mark.parametrize("old", [False, True])
def test_weight_norm_is_differentiated_by_its_formula(old):
    torch.manual_seed(0)
    if old:
        model = old_weight_norm()
        layer = model.inner[1]
        g, v = layer.weight_g, layer.weight_v
    else:
        layer = parametrizations.weight_norm(nn.Linear(5, 5))
        model = Twice(nn.Sequential(nn.Tanh(), layer))
        parts = layer.parametrizations.weight
        g, v = parts.original0, parts.original1
    by_hand = ByHand(g.detach(), v.detach(), layer.bias.detach())
    twin = Twice(nn.Sequential(nn.Tanh(), by_hand))
    twin.first, twin.last = copy.deepcopy(model.first), copy.deepcopy(model.last)
    x = normal(24, 4)
    expected = dense_hessian(twin, x, LABELS, functional.cross_entropy)
    found = lgn.HessianProbe(model, (x, LABELS), check=True).dense()
    assert [n.split(".")[0] for n, _ in model.named_parameters()] == [
        n.split(".")[0] for n, _ in twin.named_parameters()
    ]
    assert deviation(found, expected) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_residual_networks_are_probed_in_spite_of_their_kinks(seed, dtype):
    """Tens of thousands of activations: some of them change sign within any step but the smallest."""
    torch.manual_seed(seed)
    model, x = residual_network(), normal(24, 3, 8, 8, seed=seed)
    model = train_a_little(model, x, LABELS, steps=5 * seed).to(dtype)
    probe = lgn.HessianProbe(model, (x.to(dtype), LABELS))
    rows = probe.check().to_frame().set_index("check")
    assert (rows["error"] <= rows["allowed"]).all()
    assert "finite differences at step" in rows.loc["finite differences", "what"]
    v = normal(probe.shape[0])
    wide = lgn.HessianProbe(model.double(), (x.double(), LABELS), check=False)
    assert deviation(probe @ v.to(dtype), wide @ v.double()) < 1e-4


class PartlyInFloat32(nn.Module):
    """A layer norm that is computed in float32 whatever the module's dtype, as many are."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 3)

    def forward(self, x):
        hidden = self.first(x)
        weight, bias = self.norm.weight.float(), self.norm.bias.float()
        normed = functional.layer_norm(hidden.float(), (5,), weight, bias)
        return self.last(normed.to(hidden.dtype).tanh())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, F64], ids=str)
def test_rounding_inside_a_module_is_not_taken_for_a_wrong_product(dtype):
    torch.manual_seed(0)
    probe = lgn.HessianProbe(PartlyInFloat32().to(dtype), (normal(24, 4).to(dtype), LABELS))
    probe.check()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch.compile warns of its own deprecations
def test_a_compiled_module_is_checked_as_it_is_where_its_copy_does_not_run():
    torch.manual_seed(0)
    model, x = Twice(nn.Tanh()), normal(24, 4)
    compiled = torch.compile(model, backend="aot_eager")
    found = lgn.HessianProbe(compiled, (x, LABELS), check=True).dense()
    assert deviation(found, dense_hessian(model, x, LABELS, functional.cross_entropy)) < 1e-5


def test_the_network_of_the_report_is_probed():
    torch.manual_seed(0)
    model, x = residual_network(24, 4).eval(), normal(8, 3, 16, 16)
    lgn.HessianProbe(model, (x, LABELS[:8]))


@pytest.mark.parametrize("seeds", [range(3), pytest.param(range(3, 20), marks=pytest.mark.slow)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_dtypes_are_allowed_their_own_rounding(dtype, seeds):
    for seed in seeds:
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(4, 32), nn.GELU(), nn.Linear(32, 3)).to(dtype)
        x, y = normal(96, 4, seed=seed).to(dtype), torch.arange(96) % 3
        probe = lgn.HessianProbe(model, (x, y))
        v = normal(probe.shape[0]).sign()
        wide = lgn.HessianProbe(copy.deepcopy(model).double(), (x.double(), y), check=False)
        assert deviation(probe @ v.to(dtype), wide @ v.double()) < 16 * torch.finfo(dtype).eps


@pytest.mark.parametrize("loss_fn", [nn.L1Loss(), nn.SmoothL1Loss(), nn.HuberLoss(delta=0.3)])
def test_piecewise_losses_are_probed(loss_fn):
    torch.manual_seed(0)
    model, x, y = Twice(nn.Tanh()), normal(24, 4), normal(24, 3, seed=1)
    expected = dense_hessian(model, x, y, loss_fn)
    found = lgn.HessianProbe(model, (x, y), loss_fn=loss_fn, check=True).dense()
    assert deviation(found, expected) < 1e-5


def in_float32(output, y):
    return functional.cross_entropy(output.float(), y)


class Opaque(torch.autograd.Function):
    """x² tanh(x), whose backward hands its slope over as bare numbers."""

    @staticmethod
    def forward(ctx, x):
        t = x.detach().tanh()
        ctx.slope = 2 * x.detach() * t + x.detach() ** 2 * (1 - t**2)
        return x**2 * t

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.slope


class HalfAsCurved(Opaque):
    """Differentiable twice, and symmetric: but its second derivative is half what it should be."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * 3 * (x**2 + x.detach() ** 2) / 2


class Slope(torch.autograd.Function):
    """The product of a gradient and a slope that takes the slope for a constant."""

    @staticmethod
    def forward(ctx, grad, slope):
        ctx.save_for_backward(slope)
        return grad * slope

    @staticmethod
    def backward(ctx, grad):
        (slope,) = ctx.saved_tensors
        return grad * slope, None


class HalfDetached(Opaque):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (3 * x).sin()

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return Slope.apply(grad, 3 * (3 * x).cos())


def detaching_hook(h):
    h = h.tanh()
    if h.requires_grad:
        h.register_hook(lambda grad: grad.detach())
    return h


NOT_ITS_GRADIENT = "not the derivative of its loss|wrong against finite differences"
WRONG = {
    "raw kernels": (Opaque.apply, "Opaque"),
    "half as curved": (HalfAsCurved.apply, "HalfAsCurved"),
    "half detached": (HalfDetached.apply, "HalfDetached"),
    "detached factor": (lambda h: h * h.detach().tanh(), NOT_ITS_GRADIENT),
    "straight through": (lambda h: h + (h.round() - h).detach(), NOT_ITS_GRADIENT),
    "signs": (lambda h: h.tanh() + (h.sign() - h.tanh()).detach(), NOT_ITS_GRADIENT),
    "detaching hook": (detaching_hook, "wrong against finite differences"),
}


class Assertive(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        assert next(self.parameters()).dtype == torch.float32
        return self.inner(x)


def placed(function, where):
    inner = Calls(function)
    if where == "among ReLUs":
        inner = nn.Sequential(nn.ReLU(), nn.Linear(5, 5), inner, nn.Linear(5, 5), nn.ReLU())
    if where == "among convolutions":
        return nn.Sequential(
            nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 1), residual_network(4, 1), inner
        ).eval()
    return Twice(inner)


DTYPES = [torch.bfloat16, torch.float32, F64, "float32 alone"]
PLACES = [
    *((where, dtype) for where in ("alone", "among ReLUs") for dtype in DTYPES),
    ("among convolutions", torch.float32),
    ("among convolutions", "float32 alone"),
]


@pytest.mark.parametrize(("where", "dtype"), PLACES)
@pytest.mark.parametrize("name", WRONG)
def test_wrong_products_are_refused_and_the_reason_is_true(name, dtype, where):
    function, culprit = WRONG[name]
    torch.manual_seed(0)
    model, x = placed(function, where), normal(24, 4)
    if dtype == "float32 alone":
        model = Assertive(model)
    else:
        model, x = model.to(dtype), x.to(dtype)
    with pytest.raises(NotDifferentiableError, match=culprit) as refusal:
        lgn.HessianProbe(model, (x, LABELS), loss_fn=in_float32, check=True)
    custom = culprit in ("Opaque", "HalfAsCurved", "HalfDetached")
    assert ("custom autograd.Function" in str(refusal.value)) == (
        custom or "No custom autograd.Function" in str(refusal.value)
    )


def test_a_loss_without_curvature_is_within_what_is_allowed():
    probe = lgn.HessianProbe(
        Twice(nn.Identity()),
        (normal(24, 4), LABELS),
        params="last.bias",
        loss_fn=lambda output, y: output.mean(),
    )
    rows = probe.check().to_frame()
    assert (rows["error"] <= rows["allowed"]).all()
    assert not probe.dense().any()


def test_spectral_norm_in_training_is_refused_by_name():
    torch.manual_seed(0)
    model = Twice(parametrizations.spectral_norm(nn.Linear(5, 5)))
    with pytest.raises(NotDifferentiableError, match=r"spectral_norm in training.*model\.eval\(\)"):
        lgn.HessianProbe(model, (normal(24, 4), LABELS))


def test_a_product_that_is_not_finite_is_refused():
    model = Twice(
        Calls(lambda h: h.sum(1, keepdim=True) * 0 + (h - h).norm(dim=1, keepdim=True)), out=1
    )
    with pytest.raises(NotDifferentiableError, match="not finite"):
        lgn.HessianProbe(model, (normal(24, 4), LABELS))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_a_loss_at_its_minimum_is_probed(dtype):
    torch.manual_seed(0)
    model, x = Twice(nn.Tanh()).to(dtype), normal(24, 4).to(dtype)
    y = model(x).detach()
    probe = lgn.HessianProbe(model, (x, y), loss_fn=functional.mse_loss)
    assert not probe.grad().any()
    probe.check()


class DetachesLate(nn.Module):
    """A wrong gradient on samples that only later batches hold."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        o = torch.tanh(self.first(x))
        outputs: Tensor = self.last(torch.where(x[:, :1] > 5, o * o.detach(), o))
        return outputs


@pytest.mark.parametrize("batch_size", [None, 16])
def test_what_only_later_samples_meet_is_looked_at(batch_size: int | None) -> None:
    torch.manual_seed(0)
    module, x = DetachesLate().double(), torch.randn(96, 4).double()
    x[60:, 0] += 10
    module.first.weight.data[:, 0] *= 0.05  # off the flat ends of tanh
    with pytest.raises(NotDifferentiableError, match="is not the derivative of its loss"):
        lgn.HessianProbe(module, (x, torch.arange(96) % 3), batch_size=batch_size)
