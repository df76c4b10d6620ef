"""Without the extras there is one sentence with the command that installs them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")


@pytest.mark.parametrize(
    ("absent", "options", "message"),
    [
        ("pyarrow", ["--format", "parquet"], "Parquet files need pyarrow: pip install 'internimage-torch[parquet]'"),
        ("ray", ["--format", "jsonl", "--ray", "local"], "--ray needs Ray: pip install 'internimage-torch[ray]'"),
    ],
)
def test_what_to_install(
    program: Callable[..., Any],
    classifier: Path,
    monkeypatch: pytest.MonkeyPatch,
    absent: str,
    options: list[str],
    message: str,
) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    Path("p.jpg").touch()
    given = ("predict", "p.jpg", "--weights", classifier, "--device", "cpu", "--output", "out")
    assert program(*given, *options).refusal().startswith(f"internimage: {message}")
