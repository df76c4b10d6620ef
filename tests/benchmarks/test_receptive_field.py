"""The measurement of receptive fields runs, and keeps what it prints."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import receptive_field
from internimage.data import sample_photo


def test_every_network_has_a_row(tmp_path: Path) -> None:
    photo, output = str(sample_photo()), tmp_path / "results"
    assert receptive_field.main([photo, "--sizes", "32", "48", "--output", str(output)]) == 0
    page, numbers, picture = (next(output.glob(f"*{suffix}")) for suffix in (".md", ".json", ".png"))
    sides = json.loads(numbers.read_text())["sides"]
    assert len(sides) == 7
    for name, found in sides.items():
        assert f"| {name} | " in page.read_text()
        assert 1 <= found["0.5"] <= found["0.9"] <= found["0.99"] <= 2 * int(name.split()[-2]) - 1
    assert picture.stat().st_size > 10_000
