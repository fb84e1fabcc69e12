"""Imported first by every benchmark: `python tests/bench/bench_x.py` then finds the project, from any folder."""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))
