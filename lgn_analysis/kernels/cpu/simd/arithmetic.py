"""Arithmetic on lanes, and sums and maxima over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from lgn_analysis.kernels.cpu.simd.vector import Vector, indices, to_vector


def _call(builder: Any, name: str, kind: Any, args: list[Any]) -> Any:
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(kind, [arg.type for arg in args]), name
    )
    return builder.call(function, args)


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """Return ``a·b + c``, rounded once."""
    kind = next((item for item in (a, b, c) if isinstance(item, Vector)), None)
    if kind is None:
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vectors = [
            to_vector(context, builder, value, given, kind)
            for value, given in zip(args, sig.args, strict=True)
        ]
        return _call(builder, f"llvm.fma.v{kind.lanes}f32", kind.ir, vectors)

    return kind(a, b, c), generate


@intrinsic
def sqrt(typing: Any, vector: Any) -> Any:
    """Return the square root of each lane."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _call(builder, f"llvm.sqrt.v{vector.lanes}f32", vector.ir, args)

    return vector(vector), generate


def _halves(builder: Any, value: Any) -> tuple[Any, Any]:
    lanes = value.type.count
    return tuple(
        builder.shuffle_vector(value, value, indices(list(range(start, start + lanes // 2))))
        for start in (0, lanes // 2)
    )


def _fold(builder: Any, value: Any, combine: Callable[..., Any], down_to: int) -> Any:
    while value.type.count > down_to:
        value = combine(builder, *_halves(builder, value))
    return value


def _add(builder: Any, left: Any, right: Any) -> Any:
    return builder.fadd(left, right)


def _larger(builder: Any, left: Any, right: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", left, right), left, right)


def _make_reduction(combine: Callable[..., Any], doc: str) -> Any:
    @intrinsic
    def reduce(typing: Any, vector: Any) -> Any:
        if not isinstance(vector, Vector) or not vector.is_float:
            return None

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            last = _fold(builder, args[0], combine, down_to=1)
            return builder.extract_element(last, ir.IntType(32)(0))

        return types.float32(vector), generate

    reduce.__doc__ = doc
    return reduce


total: Final = _make_reduction(_add, "Return the sum of the lanes, as a tree of halves.")
largest: Final = _make_reduction(_larger, "Return the largest lane.")


@intrinsic
def maximum(typing: Any, left: Any, right: Any) -> Any:
    """Return the larger of two vectors lane by lane, ``right`` where either is NaN."""
    kind = left if isinstance(left, Vector) else right
    if not isinstance(kind, Vector):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        values = [
            to_vector(context, builder, value, given, kind)
            for value, given in zip(args, sig.args, strict=True)
        ]
        return _larger(builder, *values)

    return kind(left, right), generate


@intrinsic
def four_totals(typing: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Return the sums of the lanes of four vectors, as a vector of 4."""
    if not isinstance(a, Vector) or not a.is_float or a.lanes < 16:
        return None
    kind = Vector("float32", 4)

    def merge(builder: Any, left: Any, right: Any, group: int) -> Any:
        """Add the halves of each group of lanes; the left groups come first."""
        n_lanes = left.type.count
        starts = range(0, 2 * n_lanes, group)
        low = [start + lane for start in starts for lane in range(group // 2)]
        high = [lane + group // 2 for lane in low]
        return builder.fadd(
            builder.shuffle_vector(left, right, indices(low)),
            builder.shuffle_vector(left, right, indices(high)),
        )

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        a16, b16, c16, d16 = (_fold(builder, arg, _add, down_to=16) for arg in args)
        pairs = merge(builder, a16, b16, 16), merge(builder, c16, d16, 16)
        quads = merge(builder, *pairs, 8)
        for reach in (2, 1):
            order = [lane ^ reach for lane in range(16)]
            quads = builder.fadd(quads, builder.shuffle_vector(quads, quads, indices(order)))
        return builder.shuffle_vector(quads, quads, indices([0, 4, 8, 12]))

    return kind(a, a, a, a), generate
