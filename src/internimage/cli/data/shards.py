"""``internimage data pack``, and ``internimage data check`` of shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shlex import quote
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from internimage.cli.data.printing import print_findings
from internimage.cli.tables import table
from internimage.data import ImageReadError, read_image
from internimage.data.class_folders import SPLIT_FOLDERS
from internimage.data.detection.coco import Finding
from internimage.data.shards import ShardSet, find_shards, holds_shards, index_folder, pack
from internimage.data.shards.index import Index
from internimage.data.shards.packing import SHARD_MIB

# Pictures that several threads decode before findings are kept.
_AT_ONCE = 256


def pack_parser() -> ArgumentParser:
    """The options of ``pack``."""
    parser = ArgumentParser(
        description="Write class folders as shards: tar files of about one size with the pictures as they are, "
        "shuffled once, and an index. They can be read from a server, too."
    )
    parser.add_argument("folder", type=str, help="class folders, or train/, val/ and test/ with class folders inside")
    parser.add_argument("output", type=str | None, nargs="?", default=None, help="a new or empty folder")
    parser.add_argument("--shard_mib", type=float, default=SHARD_MIB, help="size of a shard in MiB")
    parser.add_argument("--seed", type=int, default=0, help="of the order, and of the share kept for validation")
    fraction = "share kept for validation where there are no split folders"
    parser.add_argument("--val_fraction", type=float, default=0.1, help=fraction)
    keep = "pack pictures, too, that can't be decoded; they are named and left out otherwise"
    parser.add_argument("--keep_unreadable", action="store_true", help=keep)
    only = "FOLDER holds tar files of webdataset's kind, or train/, val/ and test/ with such: write their index only"
    parser.add_argument("--index_only", action="store_true", help=only)
    return parser


def pack_folder(chosen: Namespace) -> int:
    """Write shards or an index, and say what was written.

    Returns 0; 1 where pictures can't be read.

    Raises:
        ValueError: there is no output, or as for `pack` and `index_folder`.
    """
    folder = Path(chosen.folder)
    if chosen.index_only:
        if chosen.output is not None:
            raise ValueError("--index_only writes beside the tar files; leave out the output folder")
        return _index(folder)
    if chosen.output is None:
        raise ValueError("say where the shards go: internimage data pack FOLDER OUT")
    packed = pack(
        folder,
        chosen.output,
        shard_mib=chosen.shard_mib,
        seed=chosen.seed,
        val_fraction=chosen.val_fraction,
        keep_unreadable=chosen.keep_unreadable,
    )
    _print_written({str(each.folder): each.index for each in packed.values()})
    bad = [error for each in packed.values() for error in each.unreadable]
    if bad:
        print(f"\n{len(bad)} pictures can't be read; they were {'packed' if chosen.keep_unreadable else 'left out'}")
    findings = [Finding("unreadable image", "", str(error), is_fixed=False) for error in bad]
    if findings:
        print_findings(findings, everything=True)
    print(f"\nlook at it: internimage data check {quote(chosen.output)}")
    print(
        f"train on it: internimage fit --config finetune --data.init_args.root {quote(chosen.output)} --run runs/mine"
    )
    return 1 if bad else 0


def _index(folder: Path) -> int:
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; give the folder of the tar files")
    names = {name for split in SPLIT_FOLDERS.values() for name in split}
    splits = [path for path in sorted(folder.iterdir()) if path.name.lower() in names and any(path.glob("*.tar"))]
    _print_written({str(path): index_folder(path, path) for path in splits or [folder]})
    print(f"\nlook at it: internimage data check {quote(str(folder))}")
    return 0


def _print_written(written: Mapping[str, Index]) -> None:
    rows: list[list[str]] = []
    for name, index in written.items():
        size = sum(shard.num_bytes for shard in index.shards) / 2**20
        numbers = (index.num_samples, len(index.shards), 0 if index.labels is None else len(index.labels))
        rows.append([name, *(f"{number:,}" for number in numbers), f"{size:,.1f}"])
    print("\n".join(table(["written", "pictures", "shards", "classes", "MiB"], rows)))


def is_sharded(source: str) -> bool:
    """Whether shards, or splits of such, lie in a folder or behind a URL."""
    return holds_shards(source) or find_shards(source) is not None


def check_shards(source: str, *, everything: bool) -> int:
    """Print what shards hold, compare every picture with its checksum, and decode it.

    Returns 0; 1 where some are damaged.

    Args:
        source: a folder or URL.
        everything: name every place, not the first three of each kind.

    Raises:
        ValueError: as for `ShardSet.open`.
    """
    splits = None if holds_shards(source) else find_shards(source)
    sources: dict[str, str | Path] = {"shards": source} if splits is None else {**splits.sources}
    print(f"{source}: classification, pictures in shards\n")
    findings: list[Finding] = []
    for split, place in sources.items():
        shards = ShardSet.open(place)
        targets: Counter[int | None] = Counter()
        with ThreadPoolExecutor() as threads:
            for part in _parts(shards):
                for target, finding in threads.map(lambda index, of=shards: _check_one(of, index), part):
                    targets[target] += finding is None
                    if finding:
                        findings.append(finding)
        count = len(shards.shards)
        held = f"{count:,} shard{'' if count == 1 else 's'}"
        print(f"{split:<6} {len(shards):>7,} images in {held}{_classes(targets, shards)}")
    return 1 if print_findings(list(dict.fromkeys(findings)), everything=everything) else 0


def _parts(shards: ShardSet) -> Iterator[range]:
    for start in range(0, len(shards), _AT_ONCE):
        yield range(start, min(start + _AT_ONCE, len(shards)))


def _check_one(shards: ShardSet, index: int) -> tuple[int | None, Finding | None]:
    """The class of a sample, and what is wrong with it."""
    try:
        content = shards.read(index)
        read_image(content, name=f"{shards.name(index)} in {shards.source}")
        return shards.target(index), None
    except ImageReadError as error:
        return None, Finding("unreadable image", "", str(error), is_fixed=False)
    except ValueError as error:
        return None, Finding("index of a shard", "", str(error), is_fixed=False)


def _classes(targets: Counter[int | None], shards: ShardSet) -> str:
    counts: list[Any] = [count for target, count in targets.items() if target is not None and count]
    if shards.labels is None or not counts:
        return ", without classes"
    least = 0 if len(counts) < len(shards.labels) else min(counts)
    without = f", {targets[None]:,} without a class" if targets[None] else ""
    return f", {len(shards.labels)} classes, {least:,} to {max(counts):,} images a class{without}"
