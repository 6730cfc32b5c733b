"""Fixed-width vectors for Numba: kernels say which lanes they use instead of hoping for them.

A :class:`Vector` is an LLVM vector; LLVM cuts it to what the machine has (AVX2, AVX-512, NEON), so
one source gives the same operations in the same order everywhere. ``+ - * / & | ^ << >>`` and
comparisons work lane by lane, between vectors and with scalars. Plain Numba loops took 1.1 to 1.3 times as
long on floats, 2.4 times on bits and 5.2 times on logits (``benchmarks/explicit_vectors.py``).
"""

from lgn_analysis.kernels.cpu.simd.arithmetic import (
    fma,
    four_totals,
    largest,
    maximum,
    n_ones,
    slice_totals,
    sqrt,
    total,
)
from lgn_analysis.kernels.cpu.simd.masks import (
    bits,
    concatenate,
    exchange,
    first_true,
    interleave,
    lanes_with,
    mask_of,
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
    spread,
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
    n_lanes,
    repeat,
    shift_down,
    to_floats,
    to_longs,
    widen,
    zero_line,
)
from lgn_analysis.kernels.cpu.simd.vector import Vector

__all__ = [
    "Vector",
    "as_floats",
    "as_ints",
    "at",
    "bits",
    "concatenate",
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
    "mask_of",
    "maximum",
    "n_lanes",
    "n_ones",
    "prefetch",
    "put",
    "repeat",
    "select",
    "shift_down",
    "slice_totals",
    "spread",
    "sqrt",
    "store",
    "store_apart",
    "to_floats",
    "to_longs",
    "to_word",
    "total",
    "widen",
    "zero_line",
    "zip_bytes",
]
