"""The vector type, its operators, and what their code is generated from."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, Final

from llvmlite import ir
from numba.core import types
from numba.extending import lower_builtin, models, register_model, type_callable

ELEMENTS: Final = {
    "uint8": (ir.IntType(8), types.uint8),
    "float32": (ir.FloatType(), types.float32),
    "float64": (ir.DoubleType(), types.float64),
    "int32": (ir.IntType(32), types.int32),
    "uint32": (ir.IntType(32), types.uint32),
    "int64": (ir.IntType(64), types.int64),
    "bool": (ir.IntType(1), types.boolean),
}


class Vector(types.Type):
    """``lanes`` values of one element type."""

    def __init__(self, element: str, lanes: int) -> None:
        self.element = element
        self.lanes = lanes
        super().__init__(name=f"Vector({element} x {lanes})")

    @property
    def ir(self) -> Any:
        """The LLVM type."""
        return ir.VectorType(ELEMENTS[self.element][0], self.lanes)

    @property
    def is_float(self) -> bool:
        """Whether arithmetic is floating-point."""
        return self.element in ("float32", "float64")

    @property
    def mask(self) -> Vector:
        """The type of a comparison of two such vectors."""
        return Vector("bool", self.lanes)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, kind.ir)


def splat_value(builder: Any, scalar: Any, lanes: int) -> Any:
    """Return ``lanes`` copies of an LLVM value."""
    empty = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    first = builder.insert_element(empty, scalar, ir.IntType(32)(0))
    return builder.shuffle_vector(first, empty, indices([0] * lanes))


def concatenate(builder: Any, parts: Sequence[Any]) -> Any:
    """Return LLVM vectors of one length as one vector."""
    joined = parts[0]
    for place, part in enumerate(parts[1:], start=1):
        n, size = joined.type.count, part.type.count
        if place > 1:
            # A shuffle takes two vectors of one length.
            part = builder.shuffle_vector(part, part, indices([i % size for i in range(n)]))
        joined = builder.shuffle_vector(joined, part, indices(list(range(n + size))))
    return joined


def indices(lanes: Sequence[int]) -> Any:
    """Return the order of a shuffle."""
    return ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes))


def constant(kind: Vector, values: Sequence[Any]) -> Any:
    """Return a constant vector."""
    return ir.Constant(kind.ir, list(values))


def to_vector(context: Any, builder: Any, value: Any, given: Any, wanted: Vector) -> Any:
    """Return a vector as it is, a scalar in every lane."""
    if isinstance(given, Vector):
        return value
    return splat_value(
        builder, context.cast(builder, value, given, ELEMENTS[wanted.element][1]), wanted.lanes
    )


def _binary(symbol: Callable[..., Any], on_floats: str | None, on_integers: str) -> None:
    @type_callable(symbol)
    def type_binary(context: Any) -> Any:
        def typer(left: Any, right: Any) -> Any:
            for kind, other in ((left, right), (right, left)):
                if isinstance(kind, Vector) and (other == kind or isinstance(other, types.Number)):
                    return kind
            return None

        return typer

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = sig.return_type
        left, right = (
            to_vector(context, builder, value, given, kind)
            for value, given in zip(args, sig.args, strict=True)
        )
        name = on_floats if kind.is_float else on_integers
        assert name is not None, f"{symbol} on {kind}"
        return getattr(builder, name)(left, right)

    lower_builtin(symbol, Vector, Vector)(lower)
    lower_builtin(symbol, Vector, types.Number)(lower)
    lower_builtin(symbol, types.Number, Vector)(lower)


for _symbol, _on_floats, _on_integers in (
    (operator.add, "fadd", "add"),
    (operator.sub, "fsub", "sub"),
    (operator.mul, "fmul", "mul"),
    (operator.truediv, "fdiv", "sdiv"),
    (operator.and_, None, "and_"),
    (operator.or_, None, "or_"),
    (operator.xor, None, "xor"),
    (operator.lshift, None, "shl"),
    (operator.rshift, None, "ashr"),
):
    _binary(_symbol, _on_floats, _on_integers)


def _comparison(symbol: Callable[..., Any], sign: str) -> None:
    @type_callable(symbol)
    def type_comparison(context: Any) -> Any:
        def typer(left: Any, right: Any) -> Any:
            if isinstance(left, Vector) and (right == left or isinstance(right, types.Number)):
                return left.mask
            return None

        return typer

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = sig.args[0]
        left, right = (
            to_vector(context, builder, value, given, kind)
            for value, given in zip(args, sig.args, strict=True)
        )
        if kind.is_float:
            return builder.fcmp_ordered(sign, left, right)
        return builder.icmp_signed(sign, left, right)

    lower_builtin(symbol, Vector, Vector)(lower)
    lower_builtin(symbol, Vector, types.Number)(lower)


for _symbol, _sign in (
    (operator.lt, "<"),
    (operator.gt, ">"),
    (operator.eq, "=="),
    (operator.ne, "!="),
):
    _comparison(_symbol, _sign)
