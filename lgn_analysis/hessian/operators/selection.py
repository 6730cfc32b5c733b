"""Which parameters of a module a probe differentiates in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.validation import shown
from lgn_analysis.hessian.operators.linear import Params


def select_parameters(model: nn.Module, patterns: str | Sequence[str] | None) -> Params:
    """Return the parameters by name; patterns are globs, None takes those that need gradients.

    A pattern names parameters, by any name of one that is tied, or modules, whose parameters are all
    taken. The names returned are those of ``named_parameters()``.
    """
    kind = type(model).__name__
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if is_lazy(value):
            raise InvalidInputError(
                f"{name} of {kind} has no shape before the first call of a lazy module; call the "
                "module once on a batch"
            )
        if value.is_meta:
            raise InvalidInputError(f"{name} of {kind} is on the meta device and holds no numbers")
    everything = dict(model.named_parameters())
    if patterns is None:
        chosen = {name: value for name, value in everything.items() if value.requires_grad}
        if not chosen:
            raise InvalidInputError(f"{kind} has no parameters that require gradients")
    else:
        chosen = _named(model, everything, patterns)
    for name, value in chosen.items():
        if not value.is_floating_point():
            reason = (
                "a Hessian is one of real numbers: probe others by params=, or hold it as a real "
                "parameter, torch.view_as_real"
                if value.is_complex()
                else "only floating parameters have derivatives"
            )
            raise InvalidInputError(f"{name} is {value.dtype}, and {reason}")
        if value.is_inference():
            raise InvalidInputError(
                f"{name} was made in torch.inference_mode() and can have no gradient; build {kind} "
                "outside of it, and take over the values by load_state_dict"
            )
    dtypes = {value.dtype for value in chosen.values()}
    if len(dtypes) > 1:
        raise InvalidInputError(f"the parameters mix dtypes {sorted(map(str, dtypes))}")
    return {name: value.detach() for name, value in chosen.items()}


def _named(
    model: nn.Module, everything: dict[str, nn.Parameter], patterns: str | Sequence[str]
) -> dict[str, nn.Parameter]:
    wanted = [patterns] if isinstance(patterns, str) else patterns
    if not (isinstance(wanted, Sequence) and all(isinstance(name, str) for name in wanted)):
        raise InvalidInputError(
            f"params must be names of parameters, or patterns of them, got {shown(patterns)}"
        )
    names: dict[Tensor, list[str]] = {}
    for name, value in model.named_parameters(remove_duplicate=False):
        names.setdefault(value, []).append(name)
    found = {
        pattern: [
            own
            for own, value in everything.items()
            if any(fnmatchcase(part, pattern) for alias in names[value] for part in _parts(alias))
        ]
        for pattern in wanted
    }
    for pattern, matches in found.items():
        if not matches:
            raise InvalidInputError(
                f"no parameter matches {pattern!r}; there are {', '.join(everything)}"
            )
    chosen = {name for matches in found.values() for name in matches}
    if not chosen:
        raise InvalidInputError(f"params names nothing; choose from {', '.join(everything)}")
    return {name: value for name, value in everything.items() if name in chosen}


def _parts(name: str) -> Iterator[str]:
    """Yield a parameter's name, and those of the modules that it lies in."""
    while name:
        yield name
        name = name.rpartition(".")[0]
