"""Gates forward and backward, packed and on floats, against the reference and autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lgn_analysis.gates.table import gate_coefficients
from lgn_analysis.kernels import cuda, reference
from lgn_analysis.kernels.cuda.backward import Delta, backward_inputs, backward_sums
from lgn_analysis.kernels.cuda.forward import gates_forward_float, gates_forward_packed, group_sums
from lgn_analysis.kernels.cuda.runtime.layout import Consumers, consumers_of

BATCHES = (1, 63, 64, 65, 130)
TOLERANCE = {
    torch.float32: {"rtol": 1e-5, "atol": 1e-5},
    torch.float64: {"rtol": 1e-12, "atol": 1e-12},
    torch.bfloat16: {"rtol": 2e-2, "atol": 1e-2},  # 8 bits, cut off by the interpreter
}


class Layer:
    """A layer with A == B gates, unread inputs and a feature that many gates read."""

    def __init__(self, device: torch.device, n_in: int = 21, n_out: int = 37) -> None:
        generator = torch.Generator().manual_seed(n_out)
        wiring = torch.randint(n_in - 2, (2, n_out), generator=generator)
        wiring[1, :4] = wiring[0, :4]
        wiring[0, 10:14] = 3
        self.n_in, self.n_out = n_in, n_out
        self.generator = generator
        self.device = device
        self.wiring = wiring.to(device)
        self.gates = (torch.arange(n_out) % 16).to(device)
        self.consumers = Consumers.of(self.wiring, n_in)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator).to(self.device)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator).to(self.device)

    def bits(self, batch: int) -> Tensor:
        return self.uniform(self.n_in, batch) < 0.5

    def gradients(self, x: Tensor, coefficients: Tensor, delta: Tensor) -> tuple[Tensor, ...]:
        """Return the reference's gradients of x and of the coefficients."""
        x, coefficients = x.clone().requires_grad_(), coefficients.clone().requires_grad_()
        outputs = reference.gate_layer(x, self.wiring, coefficients)
        return torch.autograd.grad(outputs, (x, coefficients), delta.to(outputs.dtype))


@pytest.fixture
def layer(device: torch.device) -> Layer:
    return Layer(device)


@pytest.mark.parametrize("batch", BATCHES)
def test_packed_gates_are_the_reference(batch: int, layer: Layer) -> None:
    words = reference.pack_bits(layer.bits(batch))
    outputs = cuda.gate_layer_packed(words, layer.wiring, layer.gates)
    expected = reference.gate_layer_packed(words, layer.wiring, layer.gates)
    torch.testing.assert_close(outputs, expected)
    narrow = gates_forward_packed(words, layer.consumers.wiring, layer.gates.to(torch.uint8))
    torch.testing.assert_close(narrow, expected)


@pytest.mark.parametrize("batch", BATCHES)
def test_float_gates_are_the_reference(batch: int, layer: Layer) -> None:
    coefficients = layer.normal(layer.n_out, 4)
    x = layer.uniform(layer.n_in, batch)
    expected = reference.gate_layer(x, layer.wiring, coefficients)
    got = gates_forward_float(x, layer.wiring, coefficients, batch)
    torch.testing.assert_close(got, expected, **TOLERANCE[torch.float32])
    bits = layer.bits(batch)
    words = reference.pack_bits(bits)
    expected = reference.gate_layer(bits.to(torch.float32), layer.wiring, coefficients)
    got = gates_forward_float(words, layer.wiring, coefficients, batch)
    torch.testing.assert_close(got, expected, **TOLERANCE[torch.float32])


@pytest.mark.parametrize("batch", BATCHES)
def test_group_sums_count_bits_and_add_floats(batch: int, device: torch.device) -> None:
    bits = torch.rand(600, batch, generator=torch.Generator().manual_seed(0)).to(device) < 0.5
    expected = bits.T.unflatten(-1, (2, 300)).sum(-1) / 7.0
    words = reference.pack_bits(bits)
    torch.testing.assert_close(group_sums(words, 2, 7.0, batch), expected, rtol=0, atol=0)
    if batch == 65:
        values = bits + 0.25
        got = group_sums(values, 2, 7.0, batch)
        torch.testing.assert_close(got, expected + 75 / 7.0, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize(
    ("batch", "dtype"),
    [(batch, torch.float32) for batch in BATCHES] + [(65, torch.bfloat16), (130, torch.bfloat16)],
)
def test_packed_gradients_are_the_reference(batch: int, dtype: torch.dtype, layer: Layer) -> None:
    bits = layer.bits(batch)
    delta = layer.normal(layer.n_out, batch).to(dtype)
    weights = torch.nn.functional.one_hot(layer.gates, 16).to(torch.float32)
    coefficients = gate_coefficients(weights)
    grad_x, grad_coefficients = layer.gradients(bits.to(torch.float32), coefficients, delta)
    words = reference.pack_bits(bits)
    got, sums = backward_inputs(
        Delta(delta),
        words,
        layer.gates.to(torch.uint8),
        layer.consumers,
        batch,
        out_dtype=dtype,
        factor=1.5,
    )
    torch.testing.assert_close(got.float(), 1.5 * grad_x, **TOLERANCE[dtype])
    torch.testing.assert_close(sums.sum(0), grad_coefficients, **TOLERANCE[torch.float32])
    alone = backward_sums(Delta(delta), words, layer.wiring, batch)
    torch.testing.assert_close(alone.sum(0), grad_coefficients, **TOLERANCE[torch.float32])


@pytest.mark.parametrize(
    ("batch", "dtype"),
    [(batch, torch.float32) for batch in BATCHES]
    + [(65, torch.bfloat16), (65, torch.float64), (300, torch.float64)],
)
def test_float_gradients_are_the_reference(batch: int, dtype: torch.dtype, layer: Layer) -> None:
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    x = layer.uniform(layer.n_in, batch).to(wide)
    coefficients = layer.normal(layer.n_out, 4).to(wide)
    delta = layer.normal(layer.n_out, batch).to(dtype)
    grad_x, grad_coefficients = layer.gradients(x, coefficients, delta)
    got, sums = backward_inputs(
        Delta(delta), x, coefficients, layer.consumers, batch, out_dtype=dtype
    )
    torch.testing.assert_close(got.to(wide), grad_x, **TOLERANCE[dtype])
    torch.testing.assert_close(sums.sum(0), grad_coefficients, **TOLERANCE[wide])
    alone = backward_sums(Delta(delta), x, layer.wiring, batch)
    torch.testing.assert_close(alone.sum(0), grad_coefficients, **TOLERANCE[wide])


def test_the_gates_of_a_group_share_a_gradient(layer: Layer, device: torch.device) -> None:
    layer = Layer(device, n_out=36)
    x, coefficients = layer.uniform(layer.n_in, 70), layer.normal(36, 4)
    of_groups = layer.normal(4, 70)
    expected = layer.gradients(x, coefficients, of_groups.repeat_interleave(9, dim=0))
    delta = Delta(of_groups, gates_per_row=9)
    grad_x, sums = backward_inputs(
        delta, x, coefficients, layer.consumers, 70, out_dtype=torch.float32
    )
    torch.testing.assert_close(grad_x, expected[0], **TOLERANCE[torch.float32])
    torch.testing.assert_close(sums.sum(0), expected[1], **TOLERANCE[torch.float32])
    alone = backward_sums(delta, x, layer.wiring, 70)
    torch.testing.assert_close(alone.sum(0), expected[1], **TOLERANCE[torch.float32])


def test_sums_can_be_left_out(layer: Layer) -> None:
    x, coefficients = layer.uniform(layer.n_in, 65), layer.normal(layer.n_out, 4)
    delta = layer.normal(layer.n_out, 65)
    arguments = (Delta(delta), x, coefficients, layer.consumers, 65)
    with_sums, _ = backward_inputs(*arguments, out_dtype=torch.float32)
    without, sums = backward_inputs(*arguments, out_dtype=torch.float32, sums=False)
    torch.testing.assert_close(without, with_sums, rtol=0, atol=0)
    assert sums.numel() == 0


def test_a_gradient_is_the_same_bits_every_time(layer: Layer) -> None:
    words = reference.pack_bits(layer.bits(130))
    delta = Delta(layer.normal(layer.n_out, 130))
    gates = layer.gates.to(torch.uint8)
    runs = [
        backward_inputs(delta, words, gates, layer.consumers, 130, out_dtype=torch.float32)
        for _ in range(2)
    ]
    for first, second in zip(*runs, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_consumers_are_remembered_until_the_wiring_changes(device: torch.device) -> None:
    wiring = torch.tensor([[0, 2, 1], [2, 2, 0]], device=device)
    first = consumers_of(wiring, 3)
    assert consumers_of(wiring, 3) is first
    assert first.offsets.tolist() == [0, 2, 3, 6]
    assert first.readers.tolist() == [0, 5, 4, 2, 1, 3]
    assert first.partners.tolist() == [2, 1, 0, 2, 0, 2]
    wiring[0, 0] = 1
    assert consumers_of(wiring, 3).offsets.tolist() == [0, 1, 3, 6]


def test_the_layer_can_be_differentiated_any_number_of_times(layer: Layer) -> None:
    layer = Layer(layer.device, n_in=5, n_out=7)
    x = layer.uniform(5, 3).double().requires_grad_()
    coefficients = layer.normal(7, 4).double().requires_grad_()

    def outputs(x: Tensor, coefficients: Tensor) -> Tensor:
        return cuda.gate_layer(x, layer.wiring, coefficients)

    assert torch.autograd.gradcheck(outputs, (x, coefficients), fast_mode=True)
    assert torch.autograd.gradgradcheck(outputs, (x, coefficients), fast_mode=True)


def test_the_layer_works_under_torch_func(layer: Layer) -> None:
    layer = Layer(layer.device, n_in=5, n_out=7)
    x, coefficients = layer.uniform(5, 3).double(), layer.normal(7, 4).double()
    hessians = [
        torch.func.hessian(
            lambda c, x, gates=gates: (gates(x, layer.wiring, c) ** 3).sum(), argnums=(0, 1)
        )(coefficients, x)
        for gates in (cuda.gate_layer, reference.gate_layer)
    ]
    torch.testing.assert_close(*hessians, rtol=1e-12, atol=1e-12)


def test_the_layer_takes_any_trailing_shape_and_dtype(layer: Layer) -> None:
    x, coefficients = layer.uniform(layer.n_in, 2, 3), layer.normal(layer.n_out, 4)
    expected = reference.gate_layer(x, layer.wiring, coefficients)
    torch.testing.assert_close(cuda.gate_layer(x, layer.wiring, coefficients), expected)
    half = cuda.gate_layer(x.bfloat16(), layer.wiring, coefficients.bfloat16())
    assert half.dtype == torch.bfloat16
