"""Extremal eigenpairs by thick-restart block Lanczos, or from the matrix where that is small.

SciPy's equivalent is ``eigsh``. Made to search for copies too, it is as right on our products and takes 1.0
to 2.0 times as many, 1.3 in the median, and 1.0 to 1.5 times the seconds
(``benchmarks/eigensolvers.py``); it returns nothing where a budget of products ends, and keeps its basis
on the CPU.

Source: Wu, Simon, SIAM J. Matrix Anal. Appl. 22 (2000).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from scipy.linalg import eigh
from torch import Tensor
from tqdm.auto import tqdm

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.memory import format_bytes, require_memory
from lgn_analysis.base.validation import real, seed_number, shown, whole
from lgn_analysis.hessian.estimators.basis import CHUNK, Basis, Floats, tolerated_cosine
from lgn_analysis.hessian.estimators.search import ENDS, Search, Wanted, choose
from lgn_analysis.hessian.operators.dense import dense_matrix, is_dense
from lgn_analysis.hessian.operators.linear import MAX_BYTES, SymmetricOperator
from lgn_analysis.hessian.results.spectrum import EigenResult

Pairs = tuple[Floats, Tensor, Floats]
"""Values [k], falling, vectors [n, k] and residuals [k] relative to the largest |value|."""

_MORE: Final = 48
"""Vectors that the basis may hold beside four a pair."""

_COLUMNS: Final = 16
"""Products for the residuals are made so many at a time."""


def top_eigenpairs(
    operator: SymmetricOperator,
    k: int = 10,
    which: str = "BE",
    *,
    tol: float = 1e-6,
    max_matvecs: int | None = None,
    copies: bool = True,
    method: str = "auto",
    seed: int = 0,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
) -> EigenResult:
    """Return k eigenpairs H v = λ v at the ends of the spectrum.

    A Krylov space shows a multiple eigenvalue once for each vector that it starts from. With
    ``copies`` it starts from two: where no value is seen twice, none is hidden, which costs a
    sixth to a third more products than one start does. Where one is seen twice, a third copy may hide: the
    pairs are locked, and a new random start orthogonal to them looks for more, until a search ends
    with nothing beyond the pairs held. Without ``copies`` one vector starts, the fewest products
    are spent, and a multiple eigenvalue may be returned once.

    Memory: at most ``max_bytes`` for the basis, all temporaries and the result; what the operator
    takes for itself is not counted. The basis holds up to 4·k + 48 vectors and is restarted when it
    is full; a smaller one costs products.

    Args:
        operator: H; of a method of a probe, the probe.
        k: number of pairs, at most n.
        which: ``"LA"`` largest, ``"SA"`` smallest, ``"LM"`` largest in magnitude, ``"BE"`` half at
            each end, the odd one at the upper, as SciPy has it.
        tol: residual ‖H v − λ v‖ relative to the largest |eigenvalue|.
        max_matvecs: the most products that ``"lanczos"`` spends; None is ``20·k + 400``.
        copies: whether ``"lanczos"`` looks for further copies of multiple eigenvalues.
        method: ``"lanczos"``, ``"dense"`` (n products and n³ work: every copy is there), or
            ``"auto"``: dense where it costs hardly more than the iteration would.
        seed: seed of the start vectors.
        max_bytes: the most memory to take.
        progress: show a progress bar.

    Raises:
        InvalidInputError: an option does not fit, or the smallest basis does not fit ``max_bytes``.

    >>> from lgn_analysis.hessian import DenseOperator
    >>> matrix = torch.diag(torch.tensor([3.0, -2.0, 1.0, 0.0], dtype=torch.float64))
    >>> top_eigenpairs(DenseOperator(matrix), k=2, which="BE").values.tolist()
    [3.0, -2.0]
    """
    n = operator.shape[0]
    if which not in ENDS:
        raise InvalidInputError(f"which must be one of {', '.join(ENDS)}, got {shown(which)}")
    k, seed = whole("k", k, least=1, most=n), seed_number(seed)
    if not real("tol", tol) > 0:
        raise InvalidInputError(f"tol must be above zero, got {tol}")
    if method == "dense" and max_matvecs is not None:
        raise InvalidInputError(
            f"method='dense' has no option 'max_matvecs', since it takes {n} products; it has k, which, "
            "tol, max_bytes"
        )
    allowed = 20 * k + 400 if max_matvecs is None else whole("max_matvecs", max_matvecs)
    # The iteration takes 4·k to 10·k products and a few dozen; the identity's come in wide blocks.
    dense = is_dense(method, n, products=min(12 * k + 120, allowed), max_bytes=max_bytes)
    if dense:
        pairs, spent, finished = _dense_pairs(operator, k, which, max_bytes), n, True
    else:
        if allowed < 2 * k + 1:
            raise InvalidInputError(f"{k} pairs need at least {2 * k + 1} products, got {allowed}")
        with tqdm(total=allowed, desc="eigs", unit="product", disable=not progress) as bar:
            pairs, spent, finished = _lanczos_pairs(
                operator,
                Wanted(k, which, tol, copies),
                allowed=allowed,
                seed=seed,
                max_bytes=max_bytes,
                bar=bar,
            )
    values, vectors, residuals = pairs
    converged = finished and bool((residuals <= tol).all())
    reason = "dense" if dense else "converged"
    if not finished:
        reason = f"stopped after {spent} products"
    elif not converged:
        reason = (
            f"the residuals stop at {residuals.max():.1e}, above tol = {tol:.1e}: the accuracy of "
            f"products in {operator.dtype}"
        )
    return EigenResult(
        values=values,
        vectors=vectors,
        residuals=residuals,
        n_matvecs=spent,
        converged=converged,
        reason=reason,
        which=which,
        seed=seed,
        tol=tol,
        method="dense" if dense else "lanczos",
        slices=dict(operator.slices),
    )


def _lanczos_pairs(
    operator: SymmetricOperator,
    wanted: Wanted,
    *,
    allowed: int,
    seed: int,
    max_bytes: int,
    bar: tqdm,
) -> tuple[Pairs, int, bool]:
    """Return pairs, the products spent on them, and whether the iteration came to its end."""
    k, n = wanted.k, operator.shape[0]
    block = 2 if wanted.copies and n > 1 else 1
    capacity = _capacity(operator, k, block, max_bytes)
    spent, semi = 0, tolerated_cosine(operator.dtype, wanted.tol)
    while True:
        generator = torch.Generator().manual_seed(seed)
        basis = Basis(
            operator, capacity=capacity, block=block, generator=generator, semi=semi, spare=2 * k
        )
        search = Search(basis, wanted)
        finished = search.run(allowed - spent - k, bar)
        spent += search.spent + search.count
        pairs = None if basis.lost else _refined(operator, basis, search.count)
        if pairs is not None:
            return pairs, spent, finished
        if semi == 0 or allowed - spent < 2 * k + 1:
            raise InvalidInputError(
                "the vectors found are not orthogonal: is the operator symmetric, and are its "
                f"products accurate to {operator.dtype}? If so, raise max_matvecs"
            )
        del basis, search  # their memory goes to the next ones
        semi = 0.0  # the estimate of orthogonality was wrong: keep all of it


def least_bytes(n: int, itemsize: int, k: int, block: int = 2) -> tuple[int, int]:
    """Return the memory that k pairs take beside the basis, and with the smallest basis."""
    # The result in float64, and the larger of what a step or the residuals take (a product of each
    # vector of a block and its copy, a random vector in float64 and its own) and what the sums over
    # chunks take.
    columns = max(2 * block, 2 * min(_COLUMNS, k))
    chunks = 8 * min(CHUNK, n) * (6 * k + _MORE)
    beside = n * 8 * k + max(n * (itemsize * (columns + 1) + 8), chunks)
    least = min(n, max(k + 4 * block + 2, 2 * k))
    return beside, beside + max(least + block, 2 * k) * n * itemsize


def _capacity(operator: SymmetricOperator, k: int, block: int, max_bytes: int) -> int:
    """Return how many vectors the basis may hold such that everything fits ``max_bytes``."""
    n, itemsize = operator.shape[0], operator.dtype.itemsize
    beside, least = least_bytes(n, itemsize, k, block)
    if least > max_bytes:
        raise InvalidInputError(
            f"{k} pairs of {n} numbers take at least {format_bytes(least)}, and max_bytes allows "
            f"{format_bytes(max_bytes)}; lower k, or raise max_bytes"
        )
    capacity = min(n, 4 * k + _MORE, (max_bytes - beside) // (n * itemsize) - block)
    require_memory(
        beside + max(capacity + block, 2 * k) * n * itemsize,
        f"{capacity} Lanczos vectors of {n} numbers, and {k} pairs,",
        f"lower k, or give a max_bytes of {format_bytes(least)} or more",
        device=operator.device,
    )
    return capacity


def _refined(operator: SymmetricOperator, basis: Basis, count: int) -> Pairs | None:
    """Return values, float64 vectors and true relative residuals, by one more product of each.

    Rayleigh–Ritz over the first ``count`` rows in float64, as ``V H Vᵀ s = λ V Vᵀ s``, which needs
    no exact orthogonality. None where the rows are far from orthonormal.
    """
    vectors, products = basis.rows[:count], basis.rows[count : 2 * count]
    for start in range(0, count, _COLUMNS):
        stop = min(start + _COLUMNS, count)
        products[start:stop] = operator.matmat(vectors[start:stop].T).T
    n = vectors.shape[1]
    chunks = [slice(start, start + CHUNK) for start in range(0, n, CHUNK)]
    gram, projected = np.zeros((count, count)), np.zeros((count, count))
    for chunk in chunks:
        v = vectors[:, chunk].double()
        gram += (v @ v.T).cpu().numpy()
        projected += (v @ products[:, chunk].double().T).cpu().numpy()
    if not np.abs(gram - np.eye(count)).max() < 0.01:
        return None
    values, turn = eigh((projected + projected.T) / 2, gram)
    values, turn = values[::-1].copy(), turn[:, ::-1]
    matrix = torch.from_numpy(turn.T.copy()).to(vectors.device)
    factor = torch.from_numpy(values).to(vectors.device).unsqueeze(1)
    out = torch.empty(count, n, dtype=torch.float64, device=vectors.device)
    squares = torch.zeros(count, dtype=torch.float64, device=vectors.device)
    for chunk in chunks:
        out[:, chunk] = matrix @ vectors[:, chunk].double()
        gap = matrix @ products[:, chunk].double() - factor * out[:, chunk]
        squares += gap.square().sum(1)
    return values, out.T, (squares.sqrt() / (basis.scale or 1.0)).cpu().numpy()


def _dense_pairs(operator: SymmetricOperator, k: int, which: str, max_bytes: int) -> Pairs:
    """Return values, vectors and relative residuals from the matrix."""
    matrix = dense_matrix(operator, max_bytes=max_bytes)
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    scale = float(np.abs(values).max()) or 1.0
    keep = choose(values, k, which)
    values, vectors = values[keep], vectors[:, keep]
    residuals = np.linalg.norm(matrix @ vectors - vectors * values, axis=0) / scale
    return values, torch.from_numpy(vectors).to(operator.device), residuals
