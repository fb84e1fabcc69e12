"""What several test files share."""

from pathlib import Path

import pytest


def shared_data(name: str) -> Path:
    """A real data file in `../shared/data` beside the repository; the test is skipped where there is none."""
    path = Path(__file__).resolve().parents[2] / "shared" / "data" / name
    if not path.exists():
        pytest.skip(f"real data are not here: {path}")
    return path
