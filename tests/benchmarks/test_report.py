"""The files: their names, what they hold, and that none is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from benchmarks.comparison import Agreement, Result, Row, Settings
from benchmarks.machine import command, describe
from benchmarks.memory import Memory
from benchmarks.report import as_markdown, section, write
from benchmarks.timing import Ratio, Timing

FACTS = {"date": "2030-01-31T12:00:00+00:00", "command": "python -m benchmarks --rounds 3", "processor": "two cores"}
OURS = Row("ours", Timing((10.0, 11.0, 10.5), 2), Ratio(1.0, 1.0, 1.0), None, Memory(500.0, 620.0), 96.0)
THEIRS = Row("theirs", Timing((20.0, 40.0, 21.0)), Ratio(2.0, 1.9, 3.6))
WRONG = Row("wrong", Timing((0.01, 0.012, 0.011)), None, "wrong: output differs by 3.0e-01, allowed 1.0e-05")
RESULT = Result(
    "work of size 3",
    (OURS, THEIRS, WRONG),
    (Agreement("theirs", "output", 2e-6, 1e-5), Agreement("wrong", "output", float("inf"), 1e-5)),
    (("absent", "it is not installed"),),
)


def test_names_say_date_suite_and_device_and_nothing_is_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "results"
    names = [[file.name for file in write(folder, "dcnv3", device, FACTS, [RESULT])] for device in ("cpu", "cuda")]
    assert names == [
        ["2030-01-31_dcnv3_cpu.json", "2030-01-31_dcnv3_cpu.md"],
        ["2030-01-31_dcnv3_gpu.json", "2030-01-31_dcnv3_gpu.md"],
    ]
    before = {file: file.read_bytes() for file in folder.iterdir()}
    again = write(folder, "dcnv3", "cpu", FACTS, [])
    assert [file.name for file in again] == ["2030-01-31_dcnv3_cpu_2.json", "2030-01-31_dcnv3_cpu_2.md"]
    # A number is free only if both names are.
    again[0].unlink()
    assert write(folder, "dcnv3", "cpu", FACTS, [])[1].name == "2030-01-31_dcnv3_cpu_3.md"
    assert all(file.read_bytes() == content for file, content in before.items())


def test_json_holds_every_sample_and_check(tmp_path: Path) -> None:
    content = json.loads(write(tmp_path, "models", "cpu", FACTS, [RESULT])[0].read_text(encoding="utf-8"))
    assert content["facts"] == FACTS
    (result,) = content["results"]
    ours, theirs, wrong = result["rows"]
    assert ours["timing"]["samples_ms"] == [10.0, 11.0, 10.5]
    assert ours["timing"]["median_ms"] == 10.5
    assert ours["timing"]["quartiles_ms"] == [10.25, 10.75]
    assert ours["memory"] == {"ready_mib": 500.0, "peak_mib": 620.0}
    assert theirs["ratio"] == {"median": 2.0, "low": 1.9, "high": 3.6}
    assert wrong["ratio"] is None
    assert [check["holds"] for check in result["agreements"]] == [True, False]
    assert result["skipped"] == [{"name": "absent", "reason": "it is not installed"}]


def test_markdown_table_says_what_was_found_refused_and_left_out() -> None:
    lines = section(RESULT)
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in lines if line.startswith("| ")}
    assert "| 10.5 | 10.0 | 10.2 to 10.8 |" in rows["ours"]
    assert rows["ours"].endswith("| 96.0 | 620 (120) |")
    assert "21.0 (noisy)" in rows["theirs"]
    assert "2.00 (1.90 to 3.60)" in rows["theirs"]
    assert "refused: results differ" in rows["wrong"]
    notes = [line for line in lines if line.startswith("- ")]
    assert notes[0] == "- Rounds: 3."
    assert any(line.startswith("- **Refused**: wrong: output") for line in notes)
    assert any("agree in 1 of 2 checks" in line for line in notes)
    assert notes[-1] == "- Not here: absent: it is not installed."


def test_markdown_leaves_out_columns_without_numbers_and_marks_a_quick_run() -> None:
    plain = Result("alone", (Row("ours", Timing((10.0,)), Ratio(1.0, 1.0, 1.0)),), (), ())
    page = as_markdown("models", FACTS, [plain])
    assert "images/s" not in page
    assert "MiB" not in page
    assert "times as long" not in page
    assert "- processor: two cores" in page
    assert "mean nothing" not in page
    assert "mean nothing" in as_markdown("models", FACTS | {"command": "python -m benchmarks --quick"}, [plain])


def test_facts_name_machine_versions_and_the_whole_command(tmp_path: Path) -> None:
    (tmp_path / "classification/ops_dcnv3/functions").mkdir(parents=True)
    (tmp_path / "classification/models").mkdir()
    for file in ("ops_dcnv3/functions/dcnv3_func.py", "models/intern_image.py"):
        (tmp_path / "classification" / file).write_text("", encoding="utf-8")
    settings = Settings(tmp_path, rounds=7, threads=torch.get_num_threads(), quick=True)
    facts = describe(settings, "models")
    assert facts["command"] == (
        "python -m benchmarks --suite models --rounds 7 --threads 1 --device cpu --official PATH --quick"
    )
    assert f"torch {torch.__version__}" in facts["versions"]
    assert facts["threads"].startswith("1 of")
    assert "cores" in facts["processor"]
    assert "commit" in facts["source"]
    # Of an empty file; a checkout without git is known by its operator's source.
    assert "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" in facts["official code"]
    assert all(str(tmp_path) not in fact for fact in facts.values()), "a path of this machine says nothing"


@pytest.mark.parametrize(("suite", "expected"), [("dcnv3", "--suite dcnv3"), ("training", "--suite training")])
def test_the_command_can_be_run_again(suite: str, expected: str) -> None:
    text = command(Settings(rounds=4, threads=2), suite)
    assert text == f"python -m benchmarks {expected} --rounds 4 --threads 2 --device cpu"
