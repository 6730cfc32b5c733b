"""Fixed-width vectors for Numba: kernels say which lanes they use instead of hoping for them.

A :class:`Vector` is an LLVM vector; LLVM cuts it to what the machine has (AVX2, AVX-512, NEON), so
one source gives the same operations in the same order everywhere. ``+ - * / & | ^ << >>`` and
comparisons work lane by lane, between vectors and with scalars.
"""

from lgn_analysis.kernels.cpu.simd.arithmetic import fma, four_totals, largest, maximum, sqrt, total
from lgn_analysis.kernels.cpu.simd.masks import (
    bits,
    exchange,
    first_true,
    interleave,
    lanes_with,
    select,
    to_word,
    zip_bytes,
)
from lgn_analysis.kernels.cpu.simd.memory import (
    at,
    load,
    load_like,
    prefetch,
    put,
    store,
    store_apart,
)
from lgn_analysis.kernels.cpu.simd.values import (
    as_floats,
    as_ints,
    fill,
    floats,
    ints,
    lane_numbers,
    longs,
    low_half,
    shift_down,
    to_floats,
)
from lgn_analysis.kernels.cpu.simd.vector import Vector

__all__ = [
    "Vector",
    "as_floats",
    "as_ints",
    "at",
    "bits",
    "exchange",
    "fill",
    "first_true",
    "floats",
    "fma",
    "four_totals",
    "interleave",
    "ints",
    "lane_numbers",
    "lanes_with",
    "largest",
    "load",
    "load_like",
    "longs",
    "low_half",
    "maximum",
    "prefetch",
    "put",
    "select",
    "shift_down",
    "sqrt",
    "store",
    "store_apart",
    "to_floats",
    "to_word",
    "total",
    "zip_bytes",
]
