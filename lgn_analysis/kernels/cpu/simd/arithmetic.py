"""Arithmetic on lanes, and sums and maxima over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from lgn_analysis.kernels.cpu.simd.vector import ELEMENTS, Vector, indices, to_vector


def _call(builder: Any, name: str, kind: Any, args: list[Any]) -> Any:
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(kind, [arg.type for arg in args]), name
    )
    return builder.call(function, args)


def _suffix(kind: Vector) -> str:
    """Return what LLVM appends to the name of an operation on floats."""
    return f"v{kind.lanes}f{kind.element.removeprefix('float')}"


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
        return _call(builder, f"llvm.fma.{_suffix(kind)}", kind.ir, vectors)

    return kind(a, b, c), generate


@intrinsic
def sqrt(typing: Any, vector: Any) -> Any:
    """Return the square root of each lane."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _call(builder, f"llvm.sqrt.{_suffix(vector)}", vector.ir, args)

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

        return ELEMENTS[vector.element][1](vector), generate

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
def n_ones(typing: Any, vector: Any) -> Any:
    """Return how many bits of a vector of integers are one, as int64."""
    if not isinstance(vector, Vector) or vector.is_float:
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        suffix = f"v{vector.lanes}i{vector.element.lstrip('uint')}"
        counts = _call(builder, f"llvm.ctpop.{suffix}", vector.ir, args)
        summed = _call(builder, f"llvm.vector.reduce.add.{suffix}", vector.ir.element, [counts])
        return context.cast(builder, summed, ELEMENTS[vector.element][1], types.int64)

    return types.int64(vector), generate


@intrinsic
def four_totals(typing: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Return the sums of the lanes of four vectors, as a vector of 4."""
    if not isinstance(a, Vector) or not a.is_float or a.lanes < 8:
        return None
    kind = Vector(a.element, 4)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        width = min(16, a.lanes)
        return _totals(builder, [_fold(builder, arg, _add, down_to=width) for arg in args])

    return kind(a, a, a, a), generate


@intrinsic
def slice_totals(typing: Any, a: Any, b: Any, c: Any, d: Any, like: Any) -> Any:
    """Return the sums over slices as long as ``like``: a vector of four for each, one after the other."""
    if not isinstance(a, Vector) or not isinstance(like, Vector) or a.element != like.element:
        return None
    kind = Vector(a.element, 4 * a.lanes // like.lanes)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        slices = [
            builder.shuffle_vector(arg, arg, indices(list(range(start, start + like.lanes))))
            for start in range(0, a.lanes, like.lanes)
            for arg in args[:4]
        ]
        return _totals(builder, slices)

    return kind(a, a, a, a, like), generate


def _totals(builder: Any, vectors: Sequence[Any]) -> Any:
    """Return the sums of the lanes of some vectors, a power of two of them, as one vector."""
    n_lanes, group = vectors[0].type.count, vectors[0].type.count
    while len(vectors) > 1 and group > 1:
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [_merge(builder, left, right, group) for left, right in pairs]
        group //= 2
    reach = group // 2
    while reach > 0:
        order = [lane ^ reach for lane in range(n_lanes)]
        vectors = [builder.fadd(v, builder.shuffle_vector(v, v, indices(order))) for v in vectors]
        reach //= 2
    while len(vectors) > 1:
        both = list(range(2 * vectors[0].type.count))
        vectors = [
            builder.shuffle_vector(left, right, indices(both))
            for left, right in zip(vectors[::2], vectors[1::2], strict=True)
        ]
    firsts = list(range(0, vectors[0].type.count, group))
    return builder.shuffle_vector(vectors[0], vectors[0], indices(firsts))


def _merge(builder: Any, left: Any, right: Any, group: int) -> Any:
    """Add the halves of each group of lanes; the left groups come first."""
    starts = range(0, 2 * left.type.count, group)
    low = [start + lane for start in starts for lane in range(group // 2)]
    high = [lane + group // 2 for lane in low]
    return builder.fadd(
        builder.shuffle_vector(left, right, indices(low)),
        builder.shuffle_vector(left, right, indices(high)),
    )
