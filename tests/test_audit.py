"""What `make audit` checks: licences, dependencies and pins, as the repository stands."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_audit_has_nothing_to_say():
    command = [sys.executable, str(ROOT / ".ci" / "audit.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "torch" in done.stdout


def test_every_archive_of_the_lock_has_a_hash():
    lines = (ROOT / ".ci" / "requirements.lock").read_text().splitlines()[1:]
    assert len(lines) > 100
    assert all(" --hash=sha256:" in line and len(line.split(":")[-1]) == 64 for line in lines)
