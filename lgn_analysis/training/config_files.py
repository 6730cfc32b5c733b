"""Configurations in files: ``config.toml``, and the YAML of the paper's reference code."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import tomli_w
import yaml

from lgn_analysis.base.errors import ConfigError
from lgn_analysis.base.files import replacing
from lgn_analysis.base.validation import shown
from lgn_analysis.training.config import RunConfig
from lgn_analysis.training.paper_config import paper_config


def write_config(config: RunConfig, path: str | os.PathLike[str]) -> None:
    """Write ``config`` as TOML, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(tomli_w.dumps(config.to_dict()), encoding="utf-8")


def read_config(path: str | os.PathLike[str]) -> tuple[RunConfig, list[str]]:
    """Return the configuration in a TOML file, or in a YAML file of the paper's reference code.

    Returns:
        The configuration, and a sentence for each thing in the file that is ignored.

    Raises:
        ConfigError: the file is missing, torn, or has an unknown entry.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        why = _why_unreadable(path, error)
        raise ConfigError(f"cannot read the configuration {path}: {why}") from error
    if path.suffix in (".yaml", ".yml"):
        try:
            mapping = yaml.load(text, _PlainLoader)
        # ValueError: a date that is none, or a number of too many digits.
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise ConfigError(f"{path} is not valid YAML: {_one_line(error)}") from error
        if not isinstance(mapping, dict):
            held = "nothing" if mapping is None else shown(mapping)
            raise ConfigError(
                f"{path} should hold keys and values, as the paper's YAML files do, and holds {held}"
            )
        return paper_config(mapping, source=str(path))
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML: {_one_line(error)}") from error
    return RunConfig.from_dict(tables, source=str(path)), []


class _PlainLoader(yaml.SafeLoader):
    """Plain values only: tags, repeated keys and aliases are refused.

    A few lines of aliases to aliases would fill any memory.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise _problem("an alias stands for a value; write the value", self.peek_event())
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen if isinstance(key.value, str) else False:
                raise _problem(f"the key {key.value!r} comes twice; keep one", key)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)

    def refuse(self, node: Any) -> None:
        raise _problem(f"the tag {node.tag} is not a plain value; remove it", node)


_PlainLoader.add_constructor(None, _PlainLoader.refuse)


def _problem(problem: str, at: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)


def _why_unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is none; give a TOML file, or a YAML file of the paper's code"
    if isinstance(error, IsADirectoryError):
        return f"it is a directory; give the file in it, for instance {path / 'config.toml'}"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is no UTF-8; save it in that encoding"
    return _one_line(error)


def _one_line(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        mark = error.problem_mark
        return f"{error.problem} (line {mark.line + 1}, column {mark.column + 1})"
    return " ".join(str(error).split())
