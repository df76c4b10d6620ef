"""``python -m benchmarks.loading FOLDER``: how fast pictures come to a training, from class folders and from shards.

The loader is that of ``internimage fit`` with the official augmentation at 224 pixels. Each stage is also timed alone,
in one thread and from the page cache, so that the slowest is known; and Pillow's draft mode, which decodes a JPEG at
half its size.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from jsonargparse import ArgumentParser
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from benchmarks.comparison import Settings
from benchmarks.machine import describe
from benchmarks.report import keep, one_table
from internimage.data import read_image
from internimage.data.augment import Augmentation, train_transform
from internimage.data.classification import FolderDataset
from internimage.data.shards import ShardDataset, pack
from internimage.structures import Preprocess
from internimage.tasks import ClassificationData

RESULTS = Path(__file__).resolve().parent / "results"
_SIZE, _BATCH, _CROPS = 224, 16, 4000


def main(arguments: Sequence[str]) -> int:
    """Measure, print two tables, and write them beside the others."""
    parser = ArgumentParser(prog="python -m benchmarks.loading", description=__doc__)
    parser.add_argument("folder", type=str, help="class folders, or train/ and val/ with such inside")
    parser.add_argument("--rounds", type=int, default=3, help="epochs that are timed of each loader; they take turns")
    parser.add_argument("--shard_mib", type=float, default=4.0, help="size of the shards in MiB")
    parser.add_argument("--output", type=str, default=str(RESULTS), help="folder for the result files")
    options = parser.parse_args(list(arguments))
    torch.set_num_threads(1)
    facts = describe(Settings(threads=1), "loading")
    facts["command"] = (
        f"python -m benchmarks.loading FOLDER --rounds {options.rounds} --shard_mib {options.shard_mib:g}"
    )
    with tempfile.TemporaryDirectory() as temporary:
        shards = Path(temporary) / "shards"
        pack(options.folder, shards, shard_mib=options.shard_mib)
        facts |= _describe_pictures(Path(options.folder))
        stages = measure_stages(options.folder, str(shards))
        loaders = measure_loaders({"class folders": options.folder, "shards": str(shards)}, options.rounds)
    page = as_markdown(facts, stages, loaders)
    print(page)
    numbers = json.dumps({"facts": facts, "stages": stages, "loaders": loaders}, indent=1) + "\n"
    for file in keep(Path(options.output), f"{facts['date'][:10]}_loading_cpu", numbers, page):
        print(f"wrote {file}")
    return 0


def measure_stages(folder: str, shards: str) -> list[dict[str, Any]]:
    """Milliseconds of each stage for a picture: medians over all of them, each read, decoded and varied once."""
    files, packed = _training_set(folder, FolderDataset), _training_set(shards, ShardDataset)
    vary = train_transform(Augmentation(), Preprocess(size=_SIZE))
    times: dict[str, list[float]] = {}
    for index, path in enumerate(files.paths):
        content = _timed(times, "read: a file", path.read_bytes)
        _timed(times, "read: from a shard, with its checksum", lambda at=index: packed.shards.read(at))
        image = _timed(times, "decode", lambda given=content: read_image(given))
        _timed(times, "augment and normalise", lambda given=image: vary(given))
        if path.suffix.lower() in (".jpg", ".jpeg"):
            _timed(times, "(decode at half size, by Pillow's draft mode)", lambda given=content: _half(given))
    return [{"stage": name, "ms": 1e3 * median(each), "pictures": len(each)} for name, each in times.items()]


def measure_loaders(roots: dict[str, str], rounds: int) -> list[dict[str, Any]]:
    """Pictures a second of whole epochs, after one to warm up: the median of several, in turns."""
    rows: list[dict[str, Any]] = []
    for workers in (0, 1, 2):
        loaders = {name: _data(root, workers).train_dataloader() for name, root in roots.items()}
        rates: dict[str, list[float]] = {name: [] for name in roots}
        for turn in range(rounds + 1):
            for name, loader in loaders.items():
                start = time.perf_counter()
                count = sum(len(targets) for _, targets in loader)
                if turn:
                    rates[name].append(count / (time.perf_counter() - start))
        rows += [{"source": name, "workers": workers, "rates": each} for name, each in rates.items()]
    return rows


def half_size_suffices(width: int, height: int) -> float:
    """The share of the recipe's random crops that have 224 pixels a side left in a picture of half the size."""
    augmentation, enough = Augmentation(), 0
    image = Image.new("L", (width, height))
    for _ in range(_CROPS):
        _, _, rows, columns = RandomResizedCrop.get_params(image, list(augmentation.scale), list(augmentation.ratio))
        enough += min(rows, columns) >= 2 * _SIZE
    return enough / _CROPS


def as_markdown(facts: dict[str, str], stages: Sequence[dict[str, Any]], loaders: Sequence[dict[str, Any]]) -> str:
    """A page: the facts, then both tables and the bottleneck in words."""
    cells = [[each["stage"], f"{each['ms']:.2f}", str(each["pictures"])] for each in stages]
    page = one_table("loading", facts, ("stage, one thread", "ms a picture", "pictures"), cells)
    rows = [
        [row["source"], str(row["workers"]), f"{median(row['rates']):.0f}", _range(row["rates"])] for row in loaders
    ]
    lines = ["", "| source | workers | pictures/s | of single epochs |", "| --- | ---: | ---: | ---: |"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([page.rstrip("\n"), *lines, "", bottleneck(stages), ""])


def bottleneck(stages: Sequence[dict[str, Any]]) -> str:
    """Which stage takes longest, and its share of a picture from a shard."""
    steps = {each["stage"]: each["ms"] for each in stages if not each["stage"].startswith(("(", "read: a file"))}
    slowest = max(steps, key=lambda name: steps[name])
    return f"The slowest stage is `{slowest}`: {100 * steps[slowest] / sum(steps.values()):.0f}% of a picture's time."


def _data(root: str, workers: int) -> ClassificationData:
    return ClassificationData(root, image_size=_SIZE, batch_size=_BATCH, num_workers=workers)


def _training_set(root: str, kind: type[Any]) -> Any:
    dataset = _data(root, 0).dataset("train")
    assert isinstance(dataset, kind)
    return dataset


def _timed(times: dict[str, list[float]], name: str, call: Callable[[], Any]) -> Any:
    start = time.perf_counter()
    result = call()
    times.setdefault(name, []).append(time.perf_counter() - start)
    return result


def _half(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.draft("RGB", (image.width // 2, image.height // 2))
    return image.convert("RGB")


def _describe_pictures(folder: Path) -> dict[str, str]:
    sizes, num_bytes = list(_sizes(folder)), 0
    for path in _training_set(str(folder), FolderDataset).paths:
        num_bytes += path.stat().st_size
    width, height = sorted(sizes)[len(sizes) // 2]
    share = half_size_suffices(width, height)
    return {
        "pictures": f"{len(sizes)}, mostly {width} x {height} pixels, {num_bytes / len(sizes) / 1024:.0f} KiB each",
        "at half size": f"{100 * share:.0f}% of the random crops would have {_SIZE} pixels a side left",
    }


def _sizes(folder: Path) -> Iterator[tuple[int, int]]:
    for path in _training_set(str(folder), FolderDataset).paths:
        with Image.open(path) as image:
            yield image.size


def _range(rates: Sequence[float]) -> str:
    return f"{min(rates):.0f} to {max(rates):.0f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
