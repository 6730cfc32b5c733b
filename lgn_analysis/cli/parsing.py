"""Parsing of command-line arguments, and error messages of one sentence."""

from __future__ import annotations

import contextlib
import functools
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import Field
from typing import Annotated, Any, Final, get_args, get_type_hints

import tyro
from tyro.conf import arg
from tyro.constructors import PrimitiveConstructorSpec

from lgn_analysis.base.errors import LGNError

PROGRAM: Final = "lgn-analysis"

_EDGES: Final = " │─╭╮╰╯"
"""Characters of the boxes that the parser draws around error messages."""


_QUOTE: Final = "'"
_CHOICE: Final = r"invalid choice ('.*') for argument '(\S+)'\. Expected one of \((.*)\)"


class UsageError(LGNError):
    """Arguments that are no valid command."""


def _spec(
    metavar: str, what: str, parse: Callable[..., Any], choices: tuple[str, ...] | None = None
) -> PrimitiveConstructorSpec[Any]:
    def from_words(words: list[str]) -> Any:
        try:
            return parse(*words)
        except ValueError:
            raise ValueError(f"must be {what}, got {' '.join(words)!r}") from None

    return PrimitiveConstructorSpec(
        nargs=len(metavar.split()),
        metavar=metavar,
        instance_from_str=from_words,
        is_instance=lambda value: True,
        str_from_instance=lambda value: [str(value)],
        choices=choices,
    )


WHOLE: Final = _spec("INT", "a whole number", int)
REAL: Final = _spec("FLOAT", "a number", float)
TEXT: Final = _spec("NAME", "a string", str)
PAIR: Final = _spec("FLOAT FLOAT", "two numbers", lambda *pair: tuple(map(float, pair)))


def one_of(*names: str) -> PrimitiveConstructorSpec[Any]:
    """Return how a flag takes one of some names."""
    return _spec("{" + ",".join(names) + "}", f"one of {', '.join(names)}", str, choices=names)


def flag_type(owner: type, item: Field[Any], text: str) -> Any:
    """Return how the parser takes an optional flag that sets a field of a configuration.

    Args:
        owner: the dataclass.
        item: a field of it made by :func:`lgn_analysis.training.config.option`.
        text: the help.
    """
    hint = get_type_hints(owner)[item.name]
    kinds = (hint,) if isinstance(hint, type) else get_args(hint)
    kind = next(kind for kind in (int, float, str) if kind in kinds)
    metadata, default = item.metadata, item.default
    if metadata["choices"]:
        spec = one_of(*metadata["choices"])
    elif isinstance(default, tuple):
        spec = PAIR
    else:
        spec = {int: WHOLE, float: REAL, str: TEXT}[kind]
    shown = metadata["default_text"]
    if shown is None:
        numbers = default if isinstance(default, tuple) else (default,)
        shown = " ".join(f"{n:g}" if kind is float else str(n) for n in numbers)
    hinted = arg(metavar=spec.metavar, help=text, help_behavior_hint=f"(default: {shown})")
    return Annotated[(hint if spec is PAIR else kind) | None, spec, hinted]


def parse(commands: dict[str, Any], args: Sequence[str] | None, description: str) -> Any:
    """Return the command that the arguments name, to be called without arguments.

    Raises:
        UsageError: the arguments are no valid command.
        SystemExit: they ask for help, which has been printed.
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.extras.subcommand_cli_from_dict(
                {name: _deferred(command) for name, command in commands.items()},
                prog=PROGRAM,
                description=description,
                args=args,
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UsageError(one_sentence(printed.getvalue())) from None


def _deferred(command: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    """Return a function that takes the command's arguments and leaves it to be called."""

    @functools.wraps(command)
    def later(*args: Any, **options: Any) -> Callable[[], None]:
        return functools.partial(command, *args, **options)

    return later


def one_sentence(box: str) -> str:
    """Return the error message in a box of the parser's as one sentence.

    >>> one_sentence("Missing argument\\n ---\\n  Missing value for argument '--k'.\\n ---\\n  For more")
    "Missing value for argument '--k'"
    """
    title, *sections = _sections(box)
    if len(title) > 1:
        title, sections = title[:1], [title[1:], *sections]
    body = " ".join(sections[0])
    if title == ["Required options"]:
        _, name, *rest = sections[0]
        body = f"{name} is missing: {' '.join(rest).removesuffix(' (required)')}"
    elif title == ["Missing subcommand"]:
        body = f"{title[0]}: {body}"
    body = re.sub(r"^Error parsing (\S+):", r"\1", body).removesuffix(".")
    if found := re.fullmatch(_CHOICE, body):
        value, flag, choices = found.groups()
        body = f"{flag} must be one of {choices.replace(_QUOTE, '')}, got {value}"
    sentence = body.removesuffix(". Expected 1 values")
    for section in sections[1:]:
        if section[0] == "Perhaps you meant:":
            sentence += f"; did you mean {section[1]}?"
    if found := re.search(rf"{PROGRAM}[\w ]* --help", " ".join(sections[-1])):
        sentence += f"{'' if sentence.endswith('?') else ';'} see {found.group()}"
    return sentence


def _sections(box: str) -> Iterator[list[str]]:
    """Yield the lines between rules."""
    section: list[str] = []
    for line in box.splitlines():
        text = line.strip(_EDGES)
        if text and set(text) != {"-"}:
            section.append(text)
        elif section and (set(text) == {"-"} or "─" in line):
            yield section
            section = []
    if section:
        yield section
