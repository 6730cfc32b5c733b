"""Making vectors, and converting their lanes."""

from __future__ import annotations

from typing import Any, Final

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from lgn_analysis.kernels.cpu.simd.memory import vector_of
from lgn_analysis.kernels.cpu.simd.vector import ELEMENTS, Vector, constant, indices, to_vector


def _make_splat(element: str, doc: str) -> Any:
    @intrinsic
    def splat(typing: Any, scalar: Any, lanes: Any) -> Any:
        if not isinstance(lanes, types.IntegerLiteral) or not isinstance(scalar, types.Number):
            return None
        kind = Vector(element, lanes.literal_value)

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return to_vector(context, builder, args[0], sig.args[0], kind)

        return kind(scalar, lanes), generate

    splat.__doc__ = doc
    return splat


floats: Final = _make_splat("float32", "Return ``lanes`` copies of a scalar as float32.")
ints: Final = _make_splat("int32", "Return ``lanes`` copies of a scalar as int32.")
longs: Final = _make_splat("int64", "Return ``lanes`` copies of a scalar as int64.")


@intrinsic
def four(typing: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Return four float32 as a vector."""
    kind = Vector("float32", 4)
    if not all(isinstance(scalar, types.Number) for scalar in (a, b, c, d)):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = ir.Constant(kind.ir, ir.Undefined)
        for place, (value, given) in enumerate(zip(args, sig.args, strict=True)):
            scalar = context.cast(builder, value, given, types.float32)
            vector = builder.insert_element(vector, scalar, ir.IntType(32)(place))
        return vector

    return kind(a, b, c, d), generate


@intrinsic
def lane(typing: Any, vector: Any, place: Any) -> Any:
    """Return one lane of a vector of floats; ``place`` is a literal."""
    if not isinstance(vector, Vector) or not isinstance(place, types.IntegerLiteral):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.extract_element(args[0], ir.IntType(32)(place.literal_value))

    return ELEMENTS[vector.element][1](vector, place), generate


@intrinsic
def fill(typing: Any, array: Any, scalar: Any, lanes: Any) -> Any:
    """Return ``lanes`` copies of a scalar in the array's type."""
    kind = vector_of(array, lanes)
    if kind is None:
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return to_vector(context, builder, args[1], sig.args[1], kind)

    return kind(array, scalar, lanes), generate


def _make_conversion(source: str, target: str, instruction: str, doc: str) -> Any:
    @intrinsic
    def convert(typing: Any, vector: Any) -> Any:
        if not isinstance(vector, Vector) or vector.element != source:
            return None
        kind = Vector(target, vector.lanes)

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return getattr(builder, instruction)(args[0], kind.ir)

        return kind(vector), generate

    convert.__doc__ = doc
    return convert


as_ints: Final = _make_conversion(
    "float32", "int32", "bitcast", "Return the bit patterns of floats."
)
as_floats: Final = _make_conversion("int32", "float32", "bitcast", "Return floats of bit patterns.")
to_floats: Final = _make_conversion("int32", "float32", "sitofp", "Return ints rounded to floats.")
to_longs: Final = _make_conversion("uint32", "int64", "zext", "Return uint32 lanes as int64.")
low_half: Final = _make_conversion(
    "int64", "int32", "trunc", "Return the low 32 bits of each lane."
)


@intrinsic
def zero_line(typing: Any, array: Any, copies: Any) -> Any:
    """Return zeros in the array's type: ``len(copies)`` cache lines of them."""
    if not isinstance(array, types.Array) or not isinstance(copies, types.UniTuple):
        return None
    kind = Vector(str(array.dtype), copies.count * 512 // array.dtype.bitwidth)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return constant(kind, [0.0] * kind.lanes)

    return kind(array, copies), generate


@intrinsic
def n_lanes(typing: Any, vector: Any) -> Any:
    """Return how many lanes a vector has."""
    if not isinstance(vector, Vector):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return ir.IntType(64)(vector.lanes)

    return types.int64(vector), generate


@intrinsic
def repeat(typing: Any, vector: Any, like: Any) -> Any:
    """Return copies of a vector, one after the other, as long as ``like``."""
    if not isinstance(vector, Vector) or not isinstance(like, Vector):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        order = indices(list(range(vector.lanes)) * (like.lanes // vector.lanes))
        return builder.shuffle_vector(args[0], args[0], order)

    return like(vector, like), generate


@intrinsic
def widen(typing: Any, vector: Any) -> Any:
    """Return float lanes as float64."""
    if not isinstance(vector, Vector) or not vector.is_float:
        return None
    kind = Vector("float64", vector.lanes)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return args[0] if kind == vector else builder.fpext(args[0], kind.ir)

    return kind(vector), generate


@intrinsic
def shift_down(typing: Any, vector: Any, distance: Any) -> Any:
    """Return integer lanes shifted right by ``distance`` bits, zeros coming in."""
    if not isinstance(vector, Vector) or not isinstance(distance, types.Integer):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.lshr(args[0], to_vector(context, builder, args[1], sig.args[1], vector))

    return vector(vector, distance), generate


@intrinsic
def lane_numbers(typing: Any, lanes: Any) -> Any:
    """Return int64 lanes 0, 1, 2, …"""
    if not isinstance(lanes, types.IntegerLiteral):
        return None
    kind = Vector("int64", lanes.literal_value)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return constant(kind, list(range(kind.lanes)))

    return kind(lanes), generate
