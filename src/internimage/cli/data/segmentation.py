"""``internimage data check`` of pictures with label maps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from internimage.cli.data.printing import print_findings, table
from internimage.data.detection.coco import Finding
from internimage.data.label_maps import Contents, Pairs, label_map_folders, pair_label_maps, read_pairs
from internimage.structures import IGNORED

_MOST_VALUES = 60


def check_label_maps(root: Path, *, everything: bool) -> int:
    """Print what pictures and label maps hold and what is wrong in them; 1 where something is to be mended, else 0."""
    left_out: list[Path] = []
    folders = label_map_folders(root, left_out)
    print(f"{root}: segmentation, pictures with label maps\n")
    pairs = {split: pair_label_maps(*pair) for split, pair in folders.items()}
    rows = [[split, *(f"{number:,}" for number in _numbers(found))] for split, found in pairs.items()]
    print("\n".join(table(["split", "pictures", "label maps", "pairs"], rows)), end="\n\n", flush=True)
    findings = [finding for found in pairs.values() for finding in _pair_findings(found)]
    findings += [
        Finding("split left out", str(path), "it has no label maps beside it", is_fixed=True) for path in left_out
    ]
    contents: dict[str, Contents] = {}
    for split, found in pairs.items():
        contents[split] = read_pairs(found.both)
        findings += contents[split].findings
        good = contents[split].sizes.total()
        print(
            f"{split}: {good:,} of {len(found.both):,} pairs can be read and fit{_sizes(contents[split])}", flush=True
        )
    _print_values(contents, everything)
    return 1 if print_findings(findings, everything=everything) else 0


def _numbers(pairs: Pairs) -> tuple[int, int, int]:
    both = len(pairs.both)
    return both + len(pairs.without_map), both + len(pairs.without_picture), both


def _pair_findings(pairs: Pairs) -> list[Finding]:
    without_map = "it has no label map of its name; it is not used"
    without_picture = "it has no picture of its name; add it, or remove the label map"
    alike = "another file here has this name but for its suffix; keep one of them"
    return [
        *(Finding("picture without a label map", str(path), without_map, is_fixed=True) for path in pairs.without_map),
        *(
            Finding("label map without picture", str(path), without_picture, is_fixed=False)
            for path in pairs.without_picture
        ),
        *(Finding("pictures of one name", str(path), alike, is_fixed=False) for path in pairs.alike),
    ]


def _sizes(contents: Contents) -> str:
    if not contents.sizes:
        return ""
    least, most = (f"{width} x {height}" for height, width in (min(contents.sizes), max(contents.sizes)))
    return f", {least} pixels" if least == most else f", {least} to {most} pixels"


def _print_values(contents: Mapping[str, Contents], everything: bool) -> None:
    """The values that occur, with the share of the pixels of each split."""
    counts = {split: each.num_pixels for split, each in contents.items() if each.sizes}
    if not counts:
        return
    occurring = np.flatnonzero(sum(counts.values())).tolist()
    shown = occurring if everything else occurring[:_MOST_VALUES]
    rows = [[str(value), *(_share(each[value], each.sum()) for each in counts.values())] for value in shown]
    lines = table(["value", *counts], rows)
    lines = [f"{line}  usually: ignored" if line.split()[0] == str(IGNORED) else line for line in lines]
    print("", *lines, sep="\n")
    if len(occurring) > len(shown):
        print(f"... and {len(occurring) - len(shown):,} more values up to {occurring[-1]}; --all names them")
    if occurring == [0, IGNORED]:
        print(
            f"note: if {IGNORED} is the object, write 1 in its place: {IGNORED} usually means that a pixel is ignored"
        )


def _share(count: int, total: int) -> str:
    """Of the pixels; a dash for none.

    >>> _share(1, 3), _share(1, 10**6), _share(0, 3)
    ('33.33%', '<0.01%', '-')
    """
    share = 100 * count / total
    return "-" if not count else f"{share:.2f}%" if share >= 0.005 else "<0.01%"
