"""Every CUDA kernel compiles for sm_80 and sm_90 on a machine without a GPU, and fits."""

from __future__ import annotations

import functools
import importlib
import pkgutil

import pytest

triton = pytest.importorskip("triton", reason="Triton exists on Linux alone")

from triton.backends.compiler import GPUTarget  # noqa: E402

from lgn_analysis.base.errors import InvalidInputError  # noqa: E402
from lgn_analysis.kernels import cuda  # noqa: E402
from lgn_analysis.kernels.cuda.runtime.aot import (  # noqa: E402
    _specialise,
    compile_launch,
    package_launches,
    unique_launches,
)
from lgn_analysis.kernels.cuda.runtime.launch import INTERPRETED, Launch  # noqa: E402

pytestmark = pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")

CAPABILITIES = (80, 90)
MAX_REGISTERS = 128  # four blocks of 128 threads then fit a multiprocessor
CALLED_BY_KERNELS = {
    "add_parts",
    "batch_rows",
    "corners_of",
    "gate_words",
    "gradient_options",
    "gumbel_from_words",
    "linked_tangents",
    "load_options",
    "load_pair",
    "load_tangents",
    "load_values",
    "options_of",
    "philox",
    "sign_bits",
    "store_coefficients",
    "store_options",
    "store_tangents",
    "store_values",
    "value_of",
}


def kernels() -> set[str]:
    """Return the names of all kernels of the backend."""
    modules = [
        importlib.import_module(module.name)
        for module in pkgutil.walk_packages(cuda.__path__, f"{cuda.__name__}.")
    ]
    return {
        name
        for module in modules
        for name, thing in vars(module).items()
        if isinstance(thing, triton.JITFunction) and not name.startswith("_")
    } - CALLED_BY_KERNELS


@functools.cache
def launches(directions: int = 4) -> list[Launch]:
    return [] if INTERPRETED else package_launches(directions=directions)


def test_every_kernel_is_compiled_here() -> None:
    assert {launch.kernel.__name__ for launch in launches()} == kernels()


@pytest.mark.parametrize(
    "capability", [pytest.param(80, marks=pytest.mark.slow), 90], ids=["sm_80", "sm_90"]
)
@pytest.mark.parametrize("kernel", sorted(kernels()))
def test_a_kernel_fits_the_registers(kernel: str, capability: int) -> None:
    assert_fitting(
        [launch for launch in launches() if launch.kernel.__name__ == kernel], capability
    )


@pytest.mark.slow
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_any_number_of_directions_fits_the_registers(capability: int) -> None:
    assert_fitting(launches(directions=7), capability)


def assert_fitting(chosen: list[Launch], capability: int) -> None:
    for launch in chosen:
        resources = compile_launch(launch, capability)
        assert resources.spilled == 0, resources
        assert resources.registers <= MAX_REGISTERS, resources
        assert resources.shared <= 16 * 1024, resources


@pytest.mark.slow
@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize(("width", "batch"), [(10, 1), (90, 65), (1600, 1000)])
def test_ragged_sizes_compile(width: int, batch: int, capability: int) -> None:
    """Sizes of 1, which Triton turns into constants, and sizes that nothing divides."""
    for launch in unique_launches(package_launches(width=width, batch=batch, directions=5)):
        assert compile_launch(launch, capability).registers <= 255


@pytest.mark.slow
def test_what_is_compiled_here_is_what_a_launch_would_compile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Triton's own binding of the arguments, up to the point where it would need the GPU."""
    monkeypatch.setattr(triton.runtime.driver, "_active", PretendedDriver())
    for launch in launches():
        compiled = launch.kernel.run(
            *launch.arguments,
            **launch.constants,
            grid=(1,),
            warmup=True,
            num_warps=launch.num_warps,
            enable_fp_fusion=True,
        )
        source = compiled.src
        attributes = {place: value for place, value in source.attrs.items() if value}
        assert (source.signature, source.constants, attributes) == _specialise(launch)


class PretendedDriver:
    """Names a GPU that is not there; nothing can be loaded onto it."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


def test_launches_are_told_apart_by_what_is_compiled() -> None:
    names = [launch.kernel.__name__ for launch in launches()]
    assert len(names) > len(set(names))
    assert len(unique_launches(launches() + launches())) == len(names)


def test_the_cpu_is_refused_by_name() -> None:
    import torch

    with pytest.raises(InvalidInputError, match="runs on CUDA tensors, got tensors on 'cpu'"):
        cuda.pack_bits(torch.zeros(3, 3, dtype=torch.bool))
