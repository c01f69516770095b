from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A lab with a coordinator, and without anything else."""
    lab = Lab(tmp_path)
    try:
        lab.start_coordinator()
        yield lab
    finally:
        lab.stop_all()
        # pytest shows these for a failed test only.
        for log in sorted(tmp_path.glob("*.log")):
            print(f"==== {log.name}\n{log.read_text(errors='replace')[-6000:]}")
