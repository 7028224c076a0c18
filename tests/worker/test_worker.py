"""A worker process, and what it hears from the master."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_it_listens_even_after_a_defect(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, TESTS / "programs" / "worker_with_defect.py", tmp_path],
        env={**os.environ, "PYTHONPATH": str(TESTS.parent)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "RuntimeError: a defect" in (tmp_path / "error.log").read_text()
