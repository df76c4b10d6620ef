"""Rows as they come: those of the plain prediction, for every task and format; errors, parts, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

Program = Callable[..., Any]
LayOut = Callable[[Path, int], list[Path]]
Row = dict[str, Any]
pytestmark = pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")


def lines(file: str | Path) -> list[Row]:
    return [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]


def without_nulls(value: Any) -> Any:
    """As JSON has it: Parquet has every column, and mappings as pairs."""
    if isinstance(value, dict):
        return {name: without_nulls(each) for name, each in value.items() if each is not None}
    if isinstance(value, list):
        pairs = value and all(isinstance(each, tuple) for each in value)
        return dict(value) if pairs else [without_nulls(each) for each in value]
    return value


def parquet(folder: str | Path) -> list[Row]:
    # As others read it: the folder as a whole.
    return [without_nulls(row) for row in pyarrow.parquet.read_table(folder).to_pylist()]


def without_map(rows: list[Row]) -> list[Row]:
    return [{name: value for name, value in row.items() if name != "map"} for row in rows]


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("classifier", ["--top", 2, "--batch_size", 4]),
        ("detector", ["--score", 0.2, "--batch_size", 2, "--flip"]),
        ("segmenter", ["--scales", "[0.75,1]"]),
    ],
)
def test_rows_are_those_of_the_plain_prediction(
    program: Program, lay_out: LayOut, request: pytest.FixtureRequest, task: str, options: list[Any]
) -> None:
    paths = lay_out(Path("in"), 9)
    common = ["predict", paths[7], "in", "--weights", request.getfixturevalue(task), "--device", "cpu", *options]
    assert program(*common, "--output", "plain").status == 0
    plain = json.loads(Path("plain/predictions.json").read_text(encoding="utf-8"))
    assert [row["image"] for row in plain] == [str(path) for path in (paths[7], *paths)]
    assert task != "detector" or all(row["objects"] for row in plain)
    for format, workers, read in (("jsonl", 3, lines), ("jsonl", 0, lines), ("parquet", 3, parquet)):
        outcome = program(*common, "--output", f"{format}{workers}", "--format", format, "--workers", workers)
        assert (outcome.status, outcome.err) == (0, "")
        assert outcome.out == f"10 of 10 images: {format}{workers}\n"
        rows = read(f"{format}{workers}/predictions.{format}")
        assert without_map(rows) == without_map(plain)
        if task == "segmenter":
            for row, other in zip(rows, plain, strict=True):
                written, expected = Path(f"{format}{workers}", row["map"]), Path("plain", other["map"])
                assert np.array_equal(np.asarray(Image.open(written)), np.asarray(Image.open(expected)))
    if task == "segmenter":
        assert Path("parquet3/classes.txt").read_text(encoding="utf-8") == Path("plain/classes.txt").read_text("utf-8")
        assert rows[1]["map"] == "maps/0000/00000001_00000.png"


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_unreadable_images_are_rows_with_an_error(
    program: Program, lay_out: LayOut, classifier: Path, format: str
) -> None:
    paths = lay_out(Path("in"), 6)
    paths[1].unlink()
    paths[1].write_bytes(b"")
    paths[4].write_bytes(paths[3].read_bytes()[:300])
    common = ("predict", "in", "--weights", classifier, "--device", "cpu", "--format", format, "--batch_size", 2)
    outcome = program(*common, "--output", "out")
    assert outcome.status == 1
    assert outcome.out == "4 of 6 images: out\n"
    assert outcome.err == "internimage: 2 images could not be read; their rows have an error instead\n"
    rows = lines("out/predictions.jsonl") if format == "jsonl" else parquet("out/predictions.parquet")
    assert [row["image"] for row in rows] == [str(path) for path in paths]
    assert ["error" in row for row in rows] == [number in (1, 4) for number in range(6)]
    assert rows[1] == {"image": str(paths[1]), "error": f"cannot read {paths[1]}: it is empty (0 bytes)"}
    # A finished run has nothing to do, and still knows of the errors.
    again = program(*common, "--output", "out", "--resume")
    assert (again.status, again.out, again.err) == (1, outcome.out, outcome.err)


def test_names_that_are_no_text(program: Program, lay_out: LayOut, classifier: Path) -> None:
    name = "caf\udce9.jpg"
    lay_out(Path("in"), 1)[0].rename(name)
    for format in ("jsonl", "parquet"):
        given = ("predict", name, "--weights", classifier, "--device", "cpu", "--output", format, "--format", format)
        assert program(*given).status == 0
        assert program(*given, "--resume").status == 0
    assert lines("jsonl/predictions.jsonl")[0]["image"] == name
    assert parquet("parquet/predictions.parquet")[0]["image"] == "caf\\udce9.jpg"


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_parts_share_the_images(program: Program, lay_out: LayOut, classifier: Path, format: str) -> None:
    paths = lay_out(Path("in"), 10)
    common = ("predict", "in", "--weights", classifier, "--device", "cpu", "--output", "out", "--format", format)
    for part in ("1/3", "2/3", "3/3"):
        assert program(*common, "--part", part).status == 0
    assert "out holds predictions-2-of-3.state.json, " in program(*common, "--part", "2/3").refusal()
    if format == "jsonl":
        rows = [row for number in (1, 2, 3) for row in lines(f"out/predictions-{number}-of-3.jsonl")]
    else:
        rows = parquet("out/predictions.parquet")
    assert [row["image"] for row in rows] == [str(paths[at]) for first in range(3) for at in range(first, 10, 3)]
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*") if "2-of-3" not in path.name}
    assert program(*common, "--part", "2/3", "--overwrite").status == 0
    assert {path for path in before if path.is_file() and path.stat().st_mtime_ns != before[path]} == set()


def test_overwriting_leaves_nothing_of_the_earlier_rows(program: Program, lay_out: LayOut, segmenter: Path) -> None:
    paths = lay_out(Path("in"), 5)
    common = ("--weights", segmenter, "--device", "cpu", "--output", "out")
    Path("out").mkdir()
    Path("out/mine.txt").write_text("mine", encoding="utf-8")
    assert program("predict", "in", *common, "--format", "parquet", "--rows_per_file", 2).status == 0
    assert len(list(Path("out/predictions.parquet").iterdir())) == 3
    assert "already; pass --resume" in program("predict", paths[0], *common, "--format", "jsonl").refusal()
    assert program("predict", paths[0], *common, "--format", "jsonl", "--overwrite").status == 0
    left = {str(path.relative_to("out")) for path in Path("out").rglob("*") if path.is_file()}
    maps = "maps/0000/00000000_00000.png"
    assert left == {"mine.txt", "predictions.jsonl", "predictions.state.json", "classes.txt", maps}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.png", "--format", "jsonl"], "nowhere.png does not exist; check the path"),
        (["empty", "--format", "jsonl"], "empty holds no images; known suffixes are"),
        (["p.png", "--resume"], "--resume goes with --format jsonl or parquet"),
        (["p.png", "--part", "1/2"], "--part goes with --format jsonl or parquet"),
        (["p.png", "--format", "jsonl", "--part", "3/2"], "part 3/2 is none: give a number from 1 to the count"),
        (["p.png", "--format", "jsonl", "--part", "half"], "--part must be a number and the count, such as 3/16"),
        (["p.png", "--format", "jsonl", "--resume", "--overwrite"], "give one of them"),
        (["p.png", "--format", "jsonl", "--workers", "-1"], "--workers must be 0 or more, got -1"),
        (["p.png", "--format", "jsonl", "--actors", "2"], "--actors goes with --ray"),
        (["p.png", "--format", "jsonl", "--ray", "local", "--part", "1/2"], "--part is not for --ray"),
    ],
)
def test_what_is_wrong_is_one_sentence(program: Program, classifier: Path, arguments: list[str], message: str) -> None:
    Path("empty").mkdir()
    Image.new("L", (9, 9)).save("p.png")
    outcome = program("predict", arguments[0], "--weights", classifier, "--output", "out", *arguments[1:])
    assert message in outcome.refusal()


def test_label_maps_are_not_taken_for_images(program: Program, lay_out: LayOut, segmenter: Path) -> None:
    lay_out(Path("in"), 1)
    given = ("predict", "in", "--weights", segmenter, "--output", "in/out", "--format", "jsonl")
    assert "--output in/out lies in in, and label maps would be taken for images" in program(*given).refusal()
