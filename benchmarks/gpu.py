"""``PYTHONPATH=src python benchmarks/gpu.py``: measure on a GPU; benchmarks/README.md says what and how."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # The folder of this file is on the path, not the one above it, where the package benchmarks lies.
    root = Path(__file__).resolve().parents[1]
    sys.path[:1] = [str(root), str(root / "src")]
    from benchmarks.on_gpu.command import main

    sys.exit(main(sys.argv[1:]))
