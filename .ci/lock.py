"""Write ``.ci/requirements.lock``: what CI installs, each archive with its SHA-256.

    python .ci/lock.py

pip resolves the project with its test tools under ``constraints.txt``, downloads nothing twice, and
says which archives it would install. The lock is of this platform and Python, and of the torch build
that pip finds here; elsewhere ``constraints.txt`` pins the same releases without hashes.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / ".ci" / "requirements.lock"
EXTRAS = ".[test,notebooks,mnist5k]"
BUILD = ("hatchling>=1.27", "editables")  # the project itself is built without isolation


def resolved() -> list[dict[str, object]]:
    """Return pip's report on each archive that it would install."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--report", "-"]
    command += ["--ignore-installed", "-c", "constraints.txt", *BUILD, EXTRAS]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return list(json.loads(done.stdout)["install"])


def line(item: dict[str, object]) -> str | None:
    """Return the requirement of an archive; None for the project itself."""
    facts, origin = item["metadata"], item["download_info"]
    assert isinstance(facts, dict)
    assert isinstance(origin, dict)
    if "dir_info" in origin:
        return None
    digest = origin["archive_info"]["hashes"]["sha256"]
    return f"{facts['name']}=={facts['version']} --hash=sha256:{digest}"


if __name__ == "__main__":
    lines = sorted(filter(None, map(line, resolved())), key=str.lower)
    head = (
        f"# Python {platform.python_version()} on {platform.system()} {platform.machine()}; "
        "`make lock` writes this file anew."
    )
    LOCK.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    print(f"{LOCK.relative_to(ROOT)}: {len(lines)} archives")
