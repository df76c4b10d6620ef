"""Sets of shards among the inputs, mixed with files."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Program = Callable[..., Any]
LayOut = Callable[[Path, int], list[Path]]
pytestmark = pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")


@pytest.fixture
def shards(program: Program, lay_out: LayOut) -> list[Path]:
    """Pictures as files, and in two shards, the last of them cut."""
    paths = lay_out(Path("in"), 9)
    paths[8].unlink()
    paths[8].write_bytes(paths[0].read_bytes()[:300])
    Path("shards").mkdir()
    for number, files in enumerate((paths[:4], paths[4:])):
        with tarfile.open(f"shards/shard-{number}.tar", "w") as shard:
            for path in files:
                shard.add(path, path.name)
    return paths


def rows(file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]


def test_images_in_shards_are_as_those_in_files(program: Program, shards: list[Path], classifier: Path) -> None:
    common = ("--weights", classifier, "--device", "cpu", "--format", "jsonl", "--batch_size", 3, "--workers", 2)
    assert program("predict", "shards", shards[0], *common, "--output", "a").status == 1
    assert program("predict", "in", shards[0], *common, "--output", "b").status == 1
    packed, plain = rows("a/predictions.jsonl"), rows("b/predictions.jsonl")
    names = [f"shards/shard-{int(number > 3)}.tar/{path.name}" for number, path in enumerate(shards)]
    assert [row["image"] for row in packed] == [*names, str(shards[0])]
    assert [row.get("top") for row in packed] == [row.get("top") for row in plain]
    assert packed[8]["error"].startswith(f"cannot read {names[8]}: the file is truncated")
    assert program("predict", "shards", shards[0], *common, "--output", "a", "--resume").out == "9 of 10 images: a\n"


def test_a_part_of_shards_is_a_stretch(program: Program, shards: list[Path], classifier: Path) -> None:
    common = ("--weights", classifier, "--device", "cpu", "--format", "jsonl", "--output", "out")
    found: list[str] = []
    for part, count in (("1/2", 4), ("2/2", 5)):
        program("predict", "shards", *common, "--part", part)
        mine = rows(f"out/predictions-{part[0]}-of-2.jsonl")
        assert len(mine) == count
        found += [row["image"][-9:] for row in mine]
    assert found == [path.name for path in shards]
