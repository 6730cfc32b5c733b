"""Masks: between words and lanes, and choosing by them; moving lanes."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from lgn_analysis.kernels.cpu.simd.vector import Vector, constant, indices, splat_value


@intrinsic
def select(typing: Any, mask: Any, if_true: Any, if_false: Any) -> Any:
    """Return ``if_true`` where the mask holds and ``if_false`` elsewhere."""
    if not isinstance(if_true, Vector) or if_true != if_false or mask != if_true.mask:
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(*args)

    return if_true(mask, if_true, if_false), generate


@intrinsic
def bits(typing: Any, word: Any) -> Any:
    """Return the 64 bits of an int64 as a mask, the lowest bit in lane 0."""
    ints = Vector("int32", 64)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        # A test of each lane against its own bit: quick with and without mask registers, where a
        # bitcast to a vector of i1 would be taken apart bit by bit without them.
        i32 = ir.IntType(32)
        halves = ir.Constant(ir.VectorType(i32, 2), ir.Undefined)
        for half in range(2):
            part = builder.trunc(builder.lshr(args[0], args[0].type(32 * half)), i32)
            halves = builder.insert_element(halves, part, i32(half))
        spread = builder.shuffle_vector(halves, halves, indices([0] * 32 + [1] * 32))
        places = constant(ints, [1 << (lane % 32) for lane in range(64)])
        zero = constant(ints, [0] * 64)
        return builder.icmp_unsigned("!=", builder.and_(spread, places), zero)

    return ints.mask(types.int64), generate


@intrinsic
def mask_of(typing: Any, word: Any, like: Any) -> Any:
    """Return the low bits of an int64, as many as ``like`` has lanes, at most 32, as a mask."""
    if not isinstance(like, Vector) or like.lanes > 32:
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        # As for ``bits``, lanes as wide as those that the mask will choose.
        wide = ir.IntType(64 if like.element == "float64" else 32)
        kind = Vector(f"int{wide.width}", like.lanes)
        value = args[0] if wide.width == 64 else builder.trunc(args[0], wide)
        spread = splat_value(builder, value, like.lanes)
        places = constant(kind, [1 << lane for lane in range(like.lanes)])
        tested = builder.and_(spread, places)
        return builder.icmp_unsigned("!=", tested, constant(kind, [0] * like.lanes))

    return like.mask(types.int64, like), generate


@intrinsic
def to_word(typing: Any, mask: Any) -> Any:
    """Return a mask of 64 lanes as an int64, lane 0 in the lowest bit."""
    if mask != Vector("bool", 64):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(mask), generate


@intrinsic
def exchange(typing: Any, vector: Any, distance: Any) -> Any:
    """Return the lanes in the order 0 ^ distance, 1 ^ distance, …"""
    if not isinstance(vector, Vector) or not isinstance(distance, types.IntegerLiteral):
        return None
    order = [lane ^ distance.literal_value for lane in range(vector.lanes)]

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.shuffle_vector(args[0], args[0], indices(order))

    return vector(vector, distance), generate


@intrinsic
def lanes_with(typing: Any, bit: Any, lanes: Any) -> Any:
    """Return the mask of the lanes whose number has the bit ``bit`` set."""
    if not isinstance(bit, types.IntegerLiteral) or not isinstance(lanes, types.IntegerLiteral):
        return None
    kind = Vector("bool", lanes.literal_value)
    values = [lane & bit.literal_value != 0 for lane in range(kind.lanes)]

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return constant(kind, [int(value) for value in values])

    return kind(bit, lanes), generate


@intrinsic
def first_true(typing: Any, mask: Any) -> Any:
    """Return the lowest lane where the mask holds, or the last lane where it holds nowhere."""
    if not isinstance(mask, Vector) or mask.element != "bool":
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        packed = builder.bitcast(args[0], ir.IntType(mask.lanes))
        wide = builder.zext(packed, ir.IntType(64))
        last = ir.IntType(64)(1 << (mask.lanes - 1))
        return builder.cttz(builder.or_(wide, last), ir.IntType(1)(1))

    return types.int64(mask), generate


@intrinsic
def concatenate(typing: Any, a: Any, b: Any) -> Any:
    """Return the lanes of one vector and then those of another like it."""
    if not isinstance(a, Vector) or a != b:
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.shuffle_vector(*args, indices(list(range(2 * a.lanes))))

    return Vector(a.element, 2 * a.lanes)(a, b), generate


@intrinsic
def interleave(typing: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Return a[0], b[0], c[0], d[0], a[1], … of four vectors."""
    if not isinstance(a, Vector) or not a == b == c == d:
        return None
    kind = Vector(a.element, 4 * a.lanes)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        n = a.lanes
        zipped = [lane + side * n for lane in range(n) for side in (0, 1)]
        ab, cd = (
            builder.shuffle_vector(left, right, indices(zipped))
            for left, right in ((args[0], args[1]), (args[2], args[3]))
        )
        pairs = [
            2 * lane + side * 2 * n + i for lane in range(n) for side in (0, 1) for i in (0, 1)
        ]
        return builder.shuffle_vector(ab, cd, indices(pairs))

    return kind(a, b, c, d), generate


@intrinsic
def zip_bytes(typing: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any) -> Any:
    """Return int64 lanes whose bytes, the lowest first, are the lanes of eight uint8 vectors."""
    vectors = (a, b, c, d, e, f, g, h)
    if not isinstance(a, Vector) or a.element != "uint8" or any(v != a for v in vectors):
        return None
    kind = Vector("int64", a.lanes)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        parts, unit = list(args), 1
        while len(parts) > 1:
            n = parts[0].type.count
            order = [
                start + side * n + place
                for start in range(0, n, unit)
                for side in (0, 1)
                for place in range(unit)
            ]
            parts = [
                builder.shuffle_vector(low, high, indices(order))
                for low, high in zip(parts[::2], parts[1::2], strict=True)
            ]
            unit *= 2
        return builder.bitcast(parts[0], kind.ir)

    return kind(*vectors), generate
