"""Licences and dependencies of what users install: ``python .ci/audit.py``, in an environment with it.

Checks that every distribution that the package needs has a licence that lets it be used beside MIT
code, that every third-party import of the package is declared and every declared dependency is
imported, and that ``constraints.txt`` and ``.ci/requirements.lock`` pin the same releases.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import (
    Distribution,
    PackageNotFoundError,
    distribution,
    packages_distributions,
)
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "lgn_analysis"

PERMISSIVE = (
    *("mit", "bsd", "apache", "isc", "psf", "python software foundation", "mpl", "mozilla"),
    *("hpnd", "unlicense", "cnri", "zlib", "matplotlib", "0bsd", "cc0", "public domain"),
)


def licence(found: Distribution) -> str:
    """Return what a distribution says of its licence."""
    facts = found.metadata
    said = [facts.get("License-Expression") or "", *(facts.get_all("Classifier") or [])]
    named = [item.rsplit("::", 1)[-1].strip() for item in said[1:] if item.startswith("License ::")]
    text = (facts.get("License") or "").strip()
    first = text.splitlines()[0].strip() if text else ""
    return said[0] or ", ".join(name for name in named if name != "OSI Approved") or first


def needed(name: str, found: dict[str, Distribution], extras: frozenset[str] = frozenset()) -> None:
    """Collect a distribution and all that it needs here."""
    try:
        this = distribution(name)
    except PackageNotFoundError:
        return
    key = canonicalize_name(name)
    if key in found and not extras:
        return
    found[key] = this
    for text in this.requires or []:
        requirement = Requirement(text)
        wanted = [{"extra": extra} for extra in ("", *extras)]
        if requirement.marker and not any(requirement.marker.evaluate(one) for one in wanted):
            continue
        if canonicalize_name(requirement.name) not in found:
            needed(requirement.name, found, frozenset(requirement.extras))


def imported() -> set[str]:
    """Return the top-level names that the package imports from outside."""
    names = set()
    for path in (ROOT / PACKAGE).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {PACKAGE, "__future__"}


def pins(path: Path) -> dict[str, str]:
    """Return the releases that a file pins, without the local part of a version."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s+]+)", path.read_text(encoding="utf-8"), re.M)
    return {canonicalize_name(name): version for name, version in found}


def problems() -> list[str]:
    """Print a table of licences and return what is wrong, a sentence each."""
    wrong = []
    found: dict[str, Distribution] = {}
    needed(PACKAGE, found)
    for name, this in sorted(found.items()):
        said = licence(this)
        print(f"{name:24} {this.version:16} {said}")
        if name != canonicalize_name(PACKAGE) and not any(
            part in said.lower() for part in PERMISSIVE
        ):
            wrong.append(f"{name} has the licence {said!r}, which nobody has judged yet")

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    base = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    optional = {
        canonicalize_name(Requirement(text).name)
        for texts in project["optional-dependencies"].values()
        for text in texts
    }
    owners = packages_distributions()
    for module in sorted(imported()):
        owner = {canonicalize_name(name) for name in owners.get(module, [module])}
        if not owner & (base | optional):
            wrong.append(f"{PACKAGE} imports {module}, which pyproject.toml does not declare")
    used = {canonicalize_name(n) for m in imported() for n in owners.get(m, [m])}
    wrong += [
        f"pyproject.toml declares {name}, which {PACKAGE} does not import"
        for name in sorted(base - used)
    ]

    lock, constraints = pins(ROOT / ".ci" / "requirements.lock"), pins(ROOT / "constraints.txt")
    wrong += [
        f"{name} is pinned to {constraints[name]} in constraints.txt and to {lock[name]} in the lock"
        for name in sorted(lock.keys() & constraints.keys())
        if lock[name] != constraints[name]
    ]
    wrong += [
        f"{name} is pinned in constraints.txt and not in the lock; run `make lock`"
        for name in sorted(constraints.keys() - lock.keys())
    ]
    return wrong


if __name__ == "__main__":
    found = problems()
    for problem in found:
        print(f"audit: {problem}", file=sys.stderr)
    sys.exit(bool(found))
