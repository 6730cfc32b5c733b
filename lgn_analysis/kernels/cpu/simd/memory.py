"""Between arrays and vectors; offsets are in elements, arrays flat and contiguous."""

from __future__ import annotations

from typing import Any, Final

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from lgn_analysis.kernels.cpu.simd.vector import Vector, concatenate, splat_value


def _vector_pointer(
    context: Any, builder: Any, array_type: Any, array: Any, offset: Any, to: Any
) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), to.as_pointer())


def vector_of(array: Any, lanes: Any) -> Vector | None:
    """Return the type of ``lanes`` (a literal) elements of an array, where both are such."""
    if (
        isinstance(array, types.Array)
        and array.ndim == 1
        and isinstance(lanes, types.IntegerLiteral)
    ):
        return Vector(str(array.dtype), lanes.literal_value)
    return None


@intrinsic
def at(typing: Any, array: Any, index: Any) -> Any:
    """Return array[index], index >= 0; plain indexing would first ask whether it is negative."""
    if not isinstance(array, types.Array) or array.ndim != 1:
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = context.make_array(array)(context, builder, args[0]).data
        value = builder.load(builder.gep(data, [args[1]]))
        wide = types.intp if isinstance(array.dtype, types.Integer) else array.dtype
        return context.cast(builder, value, array.dtype, wide)

    wide = types.intp if isinstance(array.dtype, types.Integer) else array.dtype
    return wide(array, types.intp), generate


@intrinsic
def put(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Set array[index], index >= 0."""
    if not isinstance(array, types.Array) or array.ndim != 1:
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = context.make_array(array)(context, builder, args[0]).data
        value = context.cast(builder, args[2], sig.args[2], array.dtype)
        builder.store(value, builder.gep(data, [args[1]]))
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


def _load(kind: Vector) -> Any:
    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _vector_pointer(context, builder, sig.args[0], args[0], args[1], kind.ir)
        instruction = builder.load(pointer)
        instruction.align = context.get_abi_alignment(context.get_data_type(sig.args[0].dtype))
        return instruction

    return generate


@intrinsic
def load(typing: Any, array: Any, offset: Any, lanes: Any) -> Any:
    """Return the vector array[offset : offset + lanes] of a contiguous array."""
    kind = vector_of(array, lanes)
    return None if kind is None else (kind(array, types.intp, lanes), _load(kind))


@intrinsic
def load_like(typing: Any, array: Any, offset: Any, like: Any) -> Any:
    """Return a vector of the type of ``like`` from array[offset:] of a contiguous array."""
    if not isinstance(like, Vector) or str(array.dtype) != like.element:
        return None
    return like(array, types.intp, like), _load(like)


@intrinsic
def spread(typing: Any, array: Any, offset: Any, stride: Any, part: Any, like: Any) -> Any:
    """Return slices as long as ``part`` that make up a vector like ``like``, each of one value.

    Slice i is array[offset + i · stride] in every lane.
    """
    if not isinstance(like, Vector) or str(array.dtype) != like.element:
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = context.make_array(array)(context, builder, args[0]).data
        place, slices = args[1], []
        for _ in range(like.lanes // part.lanes):
            slices.append(
                splat_value(builder, builder.load(builder.gep(data, [place])), part.lanes)
            )
            place = builder.add(place, args[2])
        return concatenate(builder, slices)

    return like(array, types.intp, types.intp, part, like), generate


@intrinsic
def store(typing: Any, array: Any, offset: Any, vector: Any) -> Any:
    """Write ``vector`` to array[offset : offset + lanes] of a contiguous array."""
    if not isinstance(vector, Vector) or str(array.dtype) != vector.element:
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _vector_pointer(context, builder, array, args[0], args[1], vector.ir)
        instruction = builder.store(args[2], pointer)
        instruction.align = context.get_abi_alignment(context.get_data_type(array.dtype))
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def store_apart(typing: Any, array: Any, offset: Any, stride: Any, vector: Any) -> Any:
    """Write lane i of ``vector`` to array[offset + i · stride]."""
    if not isinstance(vector, Vector) or str(array.dtype) != vector.element:
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = context.make_array(array)(context, builder, args[0]).data
        place = args[1]
        for lane in range(vector.lanes):
            value = builder.extract_element(args[3], ir.IntType(32)(lane))
            builder.store(value, builder.gep(data, [place]))
            place = builder.add(place, args[2])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, vector), generate


_LINE: Final = 64


@intrinsic
def prefetch(typing: Any, array: Any, offset: Any, lanes: Any) -> Any:
    """Ask for array[offset : offset + lanes] to be brought near; any offset is harmless."""
    kind = vector_of(array, lanes)
    if kind is None:
        return None
    per_line = _LINE * 8 // array.dtype.bitwidth

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = context.make_array(array)(context, builder, args[0]).data
        i8, i32 = ir.IntType(8), ir.IntType(32)
        signature = ir.FunctionType(ir.VoidType(), [i8.as_pointer(), i32, i32, i32])
        function = cgutils.get_or_insert_function(builder.module, signature, "llvm.prefetch.p0")
        for start in range(0, kind.lanes, per_line):
            place = builder.gep(data, [builder.add(args[1], args[1].type(start))])
            # To be read, and kept in every cache.
            builder.call(
                function, [builder.bitcast(place, i8.as_pointer()), i32(0), i32(3), i32(1)]
            )
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), generate
