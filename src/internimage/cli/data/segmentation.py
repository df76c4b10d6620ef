"""``internimage data check`` of pictures with label maps, and ``internimage data labels``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote
from typing import Literal

import numpy as np

from internimage.cli.data.printing import print_findings, shortened
from internimage.cli.tables import table
from internimage.data.detection.coco import Finding, read_coco
from internimage.data.detection.files import SPLITS, find_coco
from internimage.data.label_maps import Contents, Pairs, label_map_folders, pair_label_maps, read_pairs
from internimage.data.segmentation import LabelRules, find_classes, read_palette
from internimage.data.segmentation.rules import CLASSES_FILE
from internimage.data.segmentation.sources import CocoMaps, listed_pairs
from internimage.data.segmentation.writing import convert_colours
from internimage.structures import IGNORED, MOST_CLASSES, Colour, LabelMap

_MOST_VALUES = 60
Known = Literal["names", "number", "nothing"]


@dataclass(frozen=True)
class Meant:
    """What the options say of the values of label maps.

    Args:
        classes: how many classes there are, a well-known set, or a file of names.
        ignored: values of no class; empty for the usual one.
        reduce_zero: the value 0 is no class, and 1 the first one.
        values: the class index of each value, where label maps number otherwise.
    """

    classes: str | None = None
    ignored: tuple[int, ...] = ()
    reduce_zero: bool = False
    values: Mapping[int, int] = field(default_factory=dict[int, int])

    @property
    def is_said(self) -> bool:
        """Whether there is anything that only label maps need."""
        return self != Meant()

    def rules(self, root: Path) -> tuple[LabelRules, Known]:
        """The rules, and what is known of the classes; where it is nothing there are as many as can be."""
        count = int(self.classes) if self.classes and self.classes.isdecimal() else None
        is_named = count is None and (self.classes is not None or (root / CLASSES_FILE).is_file())
        names = (
            find_classes(root, self.classes)
            if is_named
            else LabelMap.numbered(MOST_CLASSES if count is None else count)
        )
        known: Known = "names" if is_named else "nothing" if count is None else "number"
        return LabelRules(names, self.ignored or (IGNORED,), self.reduce_zero, self.values), known


def check_label_maps(root: Path, meant: Meant, *, everything: bool) -> int:
    """Print what pictures and label maps hold and what is wrong in them; 1 where something is to be mended, else 0."""
    left_out: list[Path] = []
    folders = label_map_folders(root, left_out)
    print(f"{root}: segmentation, pictures with label maps\n")
    pairs = {split: pair_label_maps(*pair) for split, pair in folders.items()}
    findings = [
        Finding("split left out", str(path), "it has no label maps beside it", is_fixed=True) for path in left_out
    ]
    return _check(pairs, findings, *meant.rules(root), everything=everything)


def check_list(file: Path, meant: Meant, *, everything: bool) -> int:
    """The same for a text file that lists pictures and label maps.

    Raises:
        ValueError: the list can't be read, or names files that are not there.
    """
    pairs = Pairs(listed_pairs(file), (), (), ())
    print(f"{file}: segmentation, a list of pictures with label maps\n")
    return _check({file.name: pairs}, [], *meant.rules(file.parent), everything=everything)


def check_object_masks(root: Path, meant: Meant) -> None:
    """Raise ``ValueError`` if no label maps can be drawn from the objects of a set in COCO's format.

    Args:
        root: the set's folder.
        meant: what is said of label maps, which there are none of.
    """
    if meant.is_said:
        raise ValueError(f"{root} has no label maps: its classes are its categories; leave out what is said of values")
    for split in SPLITS:
        if (pair := find_coco(root, split)) is not None:
            CocoMaps(read_coco(*pair))


def convert_label_maps(folder: Path, output: Path, palette: str, ignored: Sequence[str]) -> int:
    """Write label maps in colour as class numbers; returns 0.

    Raises:
        ValueError: the palette or a colour can't be read, or as for `convert_colours`.
    """
    labels, colours = read_palette(palette)
    written = convert_colours(folder, output, labels, colours, [_colour(text) for text in ignored])
    print(f"{len(written):,} label maps of {len(labels)} classes in {output}")
    print(f"\nlook at a set with them: internimage data check FOLDER --task segmentation --classes {quote(palette)}")
    return 0


def _colour(text: str) -> Colour:
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() and int(part) < 256 for part in parts):
        raise ValueError(f"--ignore takes colours as three numbers from 0 to 255, such as 0,0,0; got {text!r}")
    red, green, blue = map(int, parts)
    return red, green, blue


def _check(
    pairs: Mapping[str, Pairs], findings: list[Finding], rules: LabelRules, known: Known, *, everything: bool
) -> int:
    rows = [[split, *(f"{number:,}" for number in _numbers(found))] for split, found in pairs.items()]
    print("\n".join(table(["split", "pictures", "label maps", "pairs"], rows)), end="\n\n", flush=True)
    findings = [*(finding for found in pairs.values() for finding in _pair_findings(found)), *findings]
    contents: dict[str, Contents] = {}
    for split, found in pairs.items():
        contents[split] = read_pairs(found.both, rules.fault)
        findings += contents[split].findings
        good = contents[split].sizes.total()
        print(
            f"{split}: {good:,} of {len(found.both):,} pairs can be read and fit{_sizes(contents[split])}", flush=True
        )
        if known == "nothing" and split == "train" and good:
            # As training counts them: what the other splits hold beyond these is no class.
            values = np.flatnonzero(contents[split].num_pixels)
            # Where everything is ignored, one class stands for those that nobody knows.
            largest = max((int(value) for value in values if value not in rules.ignored), default=0)
            count = max(largest + 1 - rules.reduce_zero, 1)
            rules = replace(rules, names=LabelMap.numbered(min(count, MOST_CLASSES)))
    _print_values(contents, rules, known == "names", everything=everything)
    if "train" in pairs and "val" not in pairs:
        print("\nnote: there are no val pictures, without which training does not begin: move some of train there")
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


def _print_values(contents: Mapping[str, Contents], rules: LabelRules, is_named: bool, *, everything: bool) -> None:
    """The values that occur, with the share of the pixels of each split."""
    counts = {split: each.num_pixels for split, each in contents.items() if each.sizes}
    if not counts:
        return
    occurring = np.flatnonzero(sum(counts.values())).tolist()
    shown = occurring if everything else occurring[:_MOST_VALUES]
    rows = [
        [_meaning(value, rules, is_named), *(_share(each[value], each.sum()) for each in counts.values())]
        for value in shown
    ]
    print("", *table(["value", *counts], rows), sep="\n")
    if len(occurring) > len(shown):
        print(f"... and {len(occurring) - len(shown):,} more values up to {occurring[-1]}; --all names them")
    if occurring == [0, IGNORED] and IGNORED in rules.ignored:
        print(
            f"note: if {IGNORED} is the object, write 1 in its place: {IGNORED} usually means that a pixel is ignored"
        )


def _meaning(value: int, rules: LabelRules, is_named: bool) -> str:
    """A value with the name of its class, if it has one."""
    index = rules.class_of(value)
    if index is None:
        return f"{value} no class"
    name = "ignored" if index == IGNORED else rules.names[index] if is_named else ""
    return shortened(f"{value} {name}".rstrip())


def _share(count: int, total: int) -> str:
    """Of the pixels; a dash for none.

    >>> _share(1, 3), _share(1, 10**6), _share(0, 3)
    ('33.33%', '<0.01%', '-')
    """
    share = 100 * count / total
    return "-" if not count else f"{share:.2f}%" if share >= 0.005 else "<0.01%"
