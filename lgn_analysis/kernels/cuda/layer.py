"""One layer on floats as a node of autograd: fused once, plain PyTorch where it is differentiated on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lgn_analysis.kernels import reference
from lgn_analysis.kernels.autograd import reference_gradient
from lgn_analysis.kernels.cuda.backward import Delta, backward_inputs, backward_sums
from lgn_analysis.kernels.cuda.forward import gates_forward_float
from lgn_analysis.kernels.cuda.runtime.layout import consumers_of


class GateLayer(torch.autograd.Function):
    """(x [n_in, batch], wiring [2, n_out], coefficients [n_out, 4]) -> [n_out, batch]."""

    @staticmethod
    def forward(x: Tensor, wiring: Tensor, coefficients: Tensor) -> Tensor:
        return gates_forward_float(x, wiring, coefficients, x.shape[1])

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, wiring, coefficients = ctx.saved_tensors
        if torch.is_grad_enabled():
            # create_graph=True: the gradient is to be differentiated again.
            return reference_gradient(reference.gate_layer, ctx.saved_tensors, grads[0])
        delta, batch = Delta(grads[0].contiguous()), x.shape[1]
        if not ctx.needs_input_grad[0]:
            return None, None, backward_sums(delta, x, wiring, batch).sum(0)
        consumers = consumers_of(wiring, x.shape[0])
        grad_x, sums = backward_inputs(
            delta, x, coefficients.contiguous(), consumers, batch, out_dtype=x.dtype
        )
        return grad_x, None, sums.sum(0)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        x, wiring, coefficients = ctx.saved_tensors
        dx, _, dc = tangents
        a, b = x.index_select(0, wiring[0]), x.index_select(0, wiring[1])
        total = torch.zeros_like(a)
        if dc is not None:
            d0, d1, d2, d3 = dc.unsqueeze(-1).unbind(1)
            total = total + (d0 + d1 * a) + (d2 + d3 * a) * b
        if dx is not None:
            _, c1, c2, c3 = coefficients.unsqueeze(-1).unbind(1)
            da, db = dx.index_select(0, wiring[0]), dx.index_select(0, wiring[1])
            total = total + (c1 + c3 * b) * da + (c2 + c3 * a) * db
        return total

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, wiring: Tensor, coefficients: Tensor) -> Any:
        layers = torch.vmap(reference.gate_layer, in_dims=in_dims)
        return layers(x, wiring, coefficients), 0
