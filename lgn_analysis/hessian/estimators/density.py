"""The spectral density by stochastic Lanczos quadrature, or from the matrix where that is small.

Source: Ubaru, Chen, Saad, SIAM J. Matrix Anal. Appl. 38 (2017); Gambhir, Stathopoulos, Orginos,
SIAM J. Sci. Comput. 39 (2017) for deflation.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.memory import format_bytes, require_memory
from lgn_analysis.base.validation import positive, seed_number, whole
from lgn_analysis.hessian.estimators.eigen import least_bytes, top_eigenpairs
from lgn_analysis.hessian.estimators.lanczos import Recurrence
from lgn_analysis.hessian.operators.dense import dense_matrix, is_dense
from lgn_analysis.hessian.operators.linear import MAX_BYTES, SymmetricOperator
from lgn_analysis.hessian.results.spectrum import DensityResult, EigenResult, Floats

MAX_BLOCK: Final = 16
"""Probes that advance together at most."""

_LONGER: Final = 4
"""Length of the continued recurrence, in recurrences."""

_LAST: Final = 4
"""Coefficients whose mean goes on."""


def spectral_density(
    operator: SymmetricOperator,
    *,
    n_probes: int = 8,
    steps: int = 40,
    deflate: EigenResult | int | None = None,
    tol: float = 0.1,
    method: str = "auto",
    seed: int = 0,
    max_bytes: int = MAX_BYTES,
    progress: bool = False,
) -> DensityResult:
    """Return Σ_i δ(λ − λ_i) / n as Gauss quadrature: Ritz values and squared first components.

    The probes advance together, one ``matmat`` a step. Nothing is smoothed before it is evaluated.

    Memory: at most ``max_bytes`` for the bases, ``steps`` vectors a probe, and all temporaries; as
    many probes advance together as fit. What the operator takes for itself is not counted.

    Args:
        operator: H; of a method of a probe, the probe.
        n_probes: Rademacher start vectors.
        steps: Lanczos steps of each; m steps are exact for moments below 2m of their start vector.
        deflate: eigenpairs that enter as they are, with no sampling error; the probes sample what
            is orthogonal to them. A few outliers carry most of the error: those of trained networks
            divide it by 3 to 6. An :class:`EigenResult` of this operator, or the number of
            pairs to find, largest |λ| first, 0 for none; None is 20 where the probes take 320
            products or more, which is about three times what these cost, and memory allows.
        tol: the result counts as converged where its expected Wasserstein distance to the spectrum
            is at most ``tol`` of the mean |λ|, which is the distance of a single spike at zero.
        method: ``"lanczos"``, ``"dense"`` (exact, from n products and n³ work), or ``"auto"``:
            dense where that costs hardly more products.
        seed: seed of the probes.
        max_bytes: the most memory to take.
        progress: show a progress bar.

    Raises:
        InvalidInputError: an option does not fit, or one probe does not fit ``max_bytes``.

    >>> from lgn_analysis.hessian import DenseOperator
    >>> density = spectral_density(DenseOperator(3 * torch.eye(20)))
    >>> density.quantile(0.5).round(6).tolist(), density.converged, density.reason
    ([3.0], True, 'dense')
    """
    n, seed = operator.shape[0], seed_number(seed)
    n_probes, steps = whole("n_probes", n_probes), whole("steps", steps)
    tol = positive("tol", tol)
    if deflate is not None and not isinstance(deflate, EigenResult):
        deflate = whole("deflate", deflate)
    if n_probes < 1 or steps < 1:
        raise InvalidInputError(
            f"n_probes and steps must be at least 1, got {n_probes} and {steps}"
        )
    if method == "dense" and deflate:
        raise InvalidInputError(
            "method='dense' has no option 'deflate', since it samples nothing; it has max_bytes"
        )
    # Products of the identity, in blocks, cost about half as much each.
    products = 0 if deflate else 2 * n_probes * min(steps, n)
    if is_dense(method, n, products=products, max_bytes=max_bytes):
        matrix = dense_matrix(operator, max_bytes=max_bytes)
        values = np.asarray(np.linalg.eigvalsh((matrix + matrix.T) / 2)[None], dtype=np.float64)
        return DensityResult(
            nodes=values,
            weights=np.full((1, n), 1 / n),
            n=n,
            n_matvecs=n,
            converged=True,
            reason="dense",
            seed=seed,
            exact=True,
        )
    if deflate is None:
        worth = n_probes * min(steps, n) >= 320 and n >= 80
        affordable = least_bytes(n, operator.dtype.itemsize, 20)[1] <= max_bytes
        deflate = 20 if worth and affordable else 0
    locked, known, spent = _known(operator, deflate, seed=seed, max_bytes=max_bytes)
    k = len(known)
    steps = min(steps, n - k)
    block = _block(operator, n_probes, steps, k, max_bytes)
    nodes = np.full((n_probes, k + _LONGER * steps), np.nan)
    weights = np.zeros(nodes.shape)
    nodes[:, :k], weights[:, :k] = known, 1 / (n * n_probes)
    generator = torch.Generator().manual_seed(seed)
    bar = tqdm(total=n_probes * steps, desc="density", unit="product", disable=not progress)
    for first in range(0, n_probes, block):
        count = min(block, n_probes - first)
        for row, (alpha, beta) in enumerate(
            _recurrences(operator, count, steps, locked, generator, bar), first
        ):
            spent += len(alpha)
            values, shares = _quadrature(alpha, beta)
            nodes[row, k : k + len(values)] = values
            weights[row, k : k + len(values)] = shares * (n - k) / (n * n_probes)
    bar.close()
    result = DensityResult(
        nodes=nodes,
        weights=weights,
        n=n,
        n_matvecs=spent,
        converged=False,
        reason="",
        seed=seed,
    )
    return _judged(result, tol)


def _quadrature(alpha: Floats, beta: Floats) -> tuple[Floats, Floats]:
    """Return nodes and weights, which add to one, from the coefficients [m] of a recurrence.

    The m × m matrix is continued by constant coefficients, the means of its last few, as if the
    spectrum went on without structure below what m steps resolve. Its first 2m moments do not
    depend on that, converged Ritz values stay, and between them the m nodes become many.
    """
    if beta[-1] > 0:
        extra = (_LONGER - 1) * len(alpha)
        alpha = np.append(alpha, np.full(extra, alpha[-_LAST:].mean()))
        beta = np.append(beta, np.full(extra, np.exp(np.log(beta[-_LAST:]).mean())))
    values, vectors = np.linalg.eigh(
        np.diag(alpha) + np.diag(beta[:-1], 1) + np.diag(beta[:-1], -1)
    )
    return values, vectors[0] ** 2


def _judged(result: DensityResult, tol: float) -> DensityResult:
    """Return the result with its verdict."""
    size, error = result.wasserstein(0.0), result.error
    converged = error <= tol * size
    if np.isnan(error):
        reason = "one probe gives no error; use n_probes of 2 or more"
    else:
        share = error / size if size else 0.0
        verdict = "converged" if converged else "not converged"
        reason = f"{verdict}: expected error {share:.1%} of the mean |λ|, tol asks {tol:.1%}"
    return replace(result, converged=converged, reason=reason)


def _recurrences(
    operator: SymmetricOperator,
    count: int,
    steps: int,
    locked: Tensor,
    generator: torch.Generator,
    bar: tqdm,
) -> list[tuple[Floats, Floats]]:
    """Advance ``count`` probes together; return alpha and beta [m] of each."""
    probes = []
    for _ in range(count):
        signs = torch.randint(0, 2, (locked.shape[1],), generator=generator, dtype=torch.int8)
        z = (2 * signs - 1).to(locked)
        z -= (locked @ z) @ locked
        probes.append(Recurrence(z, steps, locked))
    while active := [probe for probe in probes if not probe.finished]:
        if len(active) == 1:
            products = operator.matvec(active[0].last).unsqueeze(0)
        else:
            products = operator.matmat(torch.stack([probe.last for probe in active]).T).T
        for probe, product in zip(active, products, strict=True):
            probe.take(product)
        bar.update(len(active))
    return [(np.array(probe.alpha), np.array(probe.beta)) for probe in probes]


def _known(
    operator: SymmetricOperator, deflate: EigenResult | int, *, seed: int, max_bytes: int
) -> tuple[Tensor, Floats, int]:
    """Return orthonormal rows [k, n], their eigenvalues [k], and the products spent on them."""
    n = operator.shape[0]
    empty = torch.empty(0, n, dtype=operator.dtype, device=operator.device)
    if deflate == 0:
        return empty, np.empty(0), 0
    if not isinstance(deflate, EigenResult):
        if not 0 < deflate < n:
            raise InvalidInputError(f"deflate must lie in 0..{n - 1}, got {deflate}")
        # A residual r moves the density by r², so a loose tolerance does.
        pairs = top_eigenpairs(
            operator, k=deflate, which="LM", tol=1e-4, seed=seed, max_bytes=max_bytes
        )
        good = pairs.pair_converged if pairs.method == "lanczos" else np.ones(deflate, dtype=bool)
        rows = pairs.vectors.T.to(empty)[torch.from_numpy(good).to(empty.device)]
        return rows.contiguous(), pairs.values[good], pairs.n_matvecs
    if deflate.vectors.shape[0] != n:
        raise InvalidInputError(
            f"deflate has vectors of {deflate.vectors.shape[0]} numbers, and the operator {n}"
        )
    if not deflate.converged:
        raise InvalidInputError(f"deflate needs converged eigenpairs; these: {deflate.reason}")
    if len(deflate.values) >= n:
        raise InvalidInputError("deflate holds every eigenpair, and leaves nothing to sample")
    return deflate.vectors.T.to(empty).contiguous(), deflate.values, 0


def _block(operator: SymmetricOperator, n_probes: int, steps: int, k: int, max_bytes: int) -> int:
    """Return how many probes advance together within ``max_bytes``."""
    row = operator.shape[0] * operator.dtype.itemsize
    # Of each probe: its basis, its vector multiplied, its product, twice as it may have to be turned.
    # Once: the locked vectors, a remainder and its parts, and two float64 for an inner product.
    each, once = (steps + 4) * row, (k + 5) * row + 2 * 8 * operator.shape[0]
    fits = (max_bytes - once) // each
    if fits < 1:
        affordable = max(0, (max_bytes - once) // row - 4)
        raise InvalidInputError(
            f"{steps} Lanczos steps with {operator.shape[0]} numbers a vector take "
            f"{format_bytes(each + once)}, and max_bytes allows {format_bytes(max_bytes)}: "
            f"enough for {affordable} steps; lower steps, or raise max_bytes"
        )
    block = int(min(n_probes, fits, MAX_BLOCK))
    require_memory(
        once + block * each,
        f"{block} recurrences of {steps} vectors of {operator.shape[0]} numbers",
        f"lower steps, or give a max_bytes of {format_bytes(each + once)} or more",
        device=operator.device,
    )
    return block
