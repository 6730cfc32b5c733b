"""The paper's claims that no run here can decide yet, so that none is passed over in silence."""

from __future__ import annotations

from typing import Final

from lgn_analysis.experiments.verdicts import Claim, Verdict, untested

_OPEN: Final = (
    (
        "C4",
        "The gap of DLGNs grows with depth, that of GLGNs stays low",
        "depths 6, 8, 10, 12 (CIFAR-10)",
        "GLGNs of these depths with normal initialisation need far more steps than a quick run has",
    ),
    (
        "C5",
        "The gap closes for shallow and wide networks too",
        "6 × 2048k (CIFAR-10)",
        "needs the paper's width",
    ),
    (
        "C6",
        "The straight-through estimator carries most of the gap's reduction",
        "ablation against soft Gumbel (CIFAR-10)",
        "no experiment yet",
    ),
    (
        "C9",
        "The loss landscape of GLGNs is smoother",
        "2-D slices (CIFAR-10)",
        "no experiment yet",
    ),
    (
        "C10",
        "GLGNs converge on CIFAR-100, DLGNs do not in 48 GPU hours",
        "about 400k iterations (CIFAR-100)",
        "needs CIFAR-100 and a GPU",
    ),
    (
        "C11",
        "The noise costs about 5 % per iteration",
        "about 5 % (CIFAR-10, CUDA)",
        "the kernels that it speaks of are those of a GPU",
    ),
)


def verdicts() -> list[Verdict]:
    """Return a row of the ledger for each of them."""
    return [
        untested(Claim(id=number, title=title, paper=paper, metric=""), reason)
        for number, title, paper, reason in _OPEN
    ]
