"""Compile recorded launches ahead of time, on a machine that need not have a GPU.

:func:`~lgn_analysis.kernels.cuda.runtime.launch.recording` notes which kernels a piece of work would launch
and with what; :func:`compile_launch` compiles one of them to a cubin, specialised as Triton would
specialise it at run time, and reads registers and spills off it.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.gates.noise import NoiseKey, Purpose
from lgn_analysis.gates.relaxations import FUSED, Soft
from lgn_analysis.kernels.cuda.runtime.launch import INTERPRETED, Launch, recording
from lgn_analysis.kernels.interface import AdamRule, Moments, NetworkSpec

_POINTERS: Final = {
    torch.bool: "*i1",
    torch.uint8: "*u8",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.float64: "*fp64",
}
_DIVISIBLE: Final = [["tt.divisibility", 16]]


@dataclass(frozen=True)
class Resources:
    """What one compiled kernel takes.

    Attributes:
        kernel: its name.
        variant: its constants and pointer types, in one line.
        capability: 80 for sm_80, 90 for sm_90.
        registers: a thread.
        spilled: bytes of local memory a thread, 0 if every value fits the registers.
        shared: bytes of shared memory a block.
        warps: a block.
        cubin: size of the machine code file in bytes.
    """

    kernel: str
    variant: str
    capability: int
    registers: int
    spilled: int
    shared: int
    warps: int
    cubin: int


def compile_launch(launch: Launch, capability: int) -> Resources:
    """Compile one recorded launch for ``sm_{capability}``.

    Raises:
        InvalidInputError: Triton was imported for its interpreter, which compiles nothing.
    """
    if INTERPRETED:
        raise InvalidInputError("unset TRITON_INTERPRET: the interpreter compiles nothing")
    kernel = launch.kernel
    signature, constants, attributes = _specialise(launch)
    compiled = triton.compile(
        ASTSource(kernel, signature=signature, constexprs=constants, attrs=attributes),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": launch.num_warps, "enable_fp_fusion": True},
    )
    registers, spilled = _usage(compiled.asm["cubin"])
    types = [t for t in signature.values() if t.startswith("*")]
    values = [f"{name}={value}" for name, value in launch.constants.items()]
    return Resources(
        kernel=kernel.__name__,
        variant=" ".join([*values, ",".join(types)]),
        capability=capability,
        registers=registers,
        spilled=spilled,
        shared=compiled.metadata.shared,
        warps=launch.num_warps,
        cubin=len(compiled.asm["cubin"]),
    )


def unique_launches(launches: Sequence[Launch]) -> list[Launch]:
    """Return one launch of every specialisation, in the order of first use."""
    seen = {
        (launch.kernel.__name__, repr(_specialise(launch))): launch for launch in launches[::-1]
    }
    return list(seen.values())[::-1]


def _specialise(launch: Launch) -> tuple[dict[str, str], dict[Any, Any], dict[Any, Any]]:
    """Return the signature, the constants and the attributes that a launch compiles with."""
    signature: dict[str, str] = {}
    constants: dict[Any, Any] = {}
    attributes: dict[Any, Any] = {}
    names = launch.kernel.arg_names
    general = [parameter.do_not_specialize for parameter in launch.kernel.params]
    for place, (name, value) in enumerate(zip(names, launch.arguments, strict=False)):
        if isinstance(value, Tensor):
            signature[name] = _POINTERS[value.dtype]
            divisible = value.data_ptr() % 16 == 0
        elif isinstance(value, float):
            signature[name] = "fp32"
            divisible = False
        elif value == 1 and not general[place]:
            signature[name] = "constexpr"
            constants[(place,)] = 1
            divisible = False
        else:
            signature[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            divisible = value % 16 == 0 and not general[place]
        if divisible:
            attributes[(place,)] = _DIVISIBLE
    for name, value in launch.constants.items():
        signature[name] = "constexpr"
        constants[(names.index(name),)] = value
    return {name: signature[name] for name in names}, constants, attributes


def _usage(cubin: bytes) -> tuple[int, int]:
    """Return registers and bytes of local memory a thread; ours use that for spills alone."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", str(path)]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    usage = {name: int(value) for name, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", report)}
    return usage["REG"], usage["STACK"] + usage["LOCAL"]


def package_launches(*, width: int = 1600, batch: int = 128, directions: int = 7) -> list[Launch]:
    """Return one launch of every kernel and specialisation that training, evaluation and curvature use.

    Args:
        width: gates a layer, a multiple of 10; only its divisibility matters to a kernel.
        batch: samples.
        directions: of a product; 7 are taken as 4, 2 and 1, each with kernels of its own.
    """
    # A kernel's users stand above this module, which they do not need.
    from lgn_analysis.kernels import cuda
    from lgn_analysis.kernels.cuda.logits import Draw, gates_of, noise

    n_features, key = width, NoiseKey(0, Purpose.TRAINING)
    x = torch.zeros(batch, n_features, dtype=torch.bool)
    y = torch.zeros(batch, dtype=torch.int64)
    order = y[None]
    wiring = torch.arange(2 * width).reshape(2, width) % n_features
    samples = cuda.PackedSamples(torch.zeros(batch, width // 64, dtype=torch.int64), n_features)
    with recording() as launches:
        for kind in FUSED.values():
            logits = [torch.zeros(width, 16, requires_grad=True) for _ in range(3)]
            for dtype in (torch.float32, torch.bfloat16):
                network = NetworkSpec(
                    (wiring, wiring, wiring), n_features, kind(), 10, 1.0, gradient_dtype=dtype
                )
                noisy = key if network.relaxation.noisy else None
                cuda.training_forward(network, logits, x, noisy).sum().backward()
                cuda.training_forward(network, logits, x.float(), noisy).sum().backward()
            moments = [Moments(torch.zeros(width, 16), torch.zeros(width, 16)) for _ in logits]
            if kind.adaptive:
                confidences = tuple(torch.ones(()) for _ in logits)
                network = replace(network, confidences=confidences)
            steps = cuda.TrainingRun(network, logits, moments, samples, y, AdamRule(0.01))
            steps.run(order, key, steps_done=0)
            if not kind.adaptive:
                steps.run(order, key, steps_done=0, taus=[1.0])
            if network.relaxation.noisy:
                averaged = cuda.TrainingRun(
                    *(network, logits, moments, samples, y, AdamRule(0.01)), draws=3
                )
                averaged.run(order, key, steps_done=0)
                averaged.run(order, key, steps_done=0, taus=[1.0])
        words = cuda.pack_bits(x.T)
        cuda.unpack_bits(words, batch)
        cuda.gate_layer_packed(words, wiring, torch.zeros(width, dtype=torch.int64))
        cuda.group_sums(words, 10, 1.0, batch)
        for wide in (torch.float32, torch.float64):
            noise(Draw.of(key, x.device), 0, width, wide)
            coefficients = torch.zeros(width, 4, dtype=wide, requires_grad=True)
            values = x.T.to(wide).requires_grad_()
            cuda.gate_layer(values, wiring, coefficients).sum().backward()
            _launch_curvature(wiring, x, wide, directions)
        gates_of(torch.zeros(width, 16))
    return unique_launches(launches)


def _launch_curvature(wiring: Tensor, x: Tensor, dtype: torch.dtype, directions: int) -> None:
    """Take products on bits and on floats, through probed layers and others."""
    from lgn_analysis.kernels import cuda

    width = wiring.shape[1]
    network = NetworkSpec((wiring,) * 4, width, Soft(), 10, 1.0)
    logits = [torch.zeros(width, 16, dtype=dtype) for _ in network.wirings]
    for inputs in (x, x.to(dtype)):
        curvature = cuda.Curvature(
            network, logits, inputs, lambda o: o.square().sum(), tau=1.0, layers=(0, 2)
        )
        curvature.products(torch.zeros(directions, 2 * width * 16))
        curvature.activation_products(0, 0, directions)
