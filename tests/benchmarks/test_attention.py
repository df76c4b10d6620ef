"""The benchmark of deformable attention, on the smallest sizes."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.attention import OURS, THEIRS, main


def test_all_agree_and_are_written_down(tmp_path: Path) -> None:
    assert main(["--quick", "--rounds", "1", "--threads", "1", "--output", str(tmp_path)]) == 0
    (numbers,) = tmp_path.glob("*_attention_cpu.json")
    found = json.loads(numbers.read_text(encoding="utf-8"))
    assert [result["title"].split(":")[0] for result in found["results"]] == [
        "encoder, forward",
        "encoder, forward and backward",
        "decoder, forward",
        "decoder, forward and backward",
    ]
    for result in found["results"]:
        assert [row["name"] for row in result["rows"]] == [OURS, THEIRS]
        assert len(result["agreements"]) == 8
    assert "python -m benchmarks.attention --rounds 1" in found["facts"]["command"]
