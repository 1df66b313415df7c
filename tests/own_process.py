"""A test in a process that has no other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ALONE = "NUNBIT_TEST_ALONE"
"""Set in such a process."""


def passes_alone(test: str) -> None:
    """Where other models ran before, OpenVINO 2026.4 is now and then wrong in bfloat16 on processors with AMX."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", test]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, cwd=root, env=os.environ | {ALONE: "1"}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:]
