"""What the checks of all tasks print: tables, and findings by kind."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from internimage.data.detection.coco import MENDED, Finding

_EXAMPLES = 3
_LONGEST_NAME = 40

# What is to be mended by hand, by kind of finding, as a heading.
_TO_MEND = {
    "annotation id twice": "annotations with the id of another",
    "box missing": "annotations without box and mask",
    "box of other than 4 numbers": "boxes that are not four numbers",
    "broken file": "files that can't be read",
    "broken mask": "broken masks",
    "broken polygon": "broken polygons",
    "category": "broken categories",
    "category id twice": "categories with the id of another",
    "category name twice": "categories with the name of another",
    "coordinate is no number": "coordinates that are no numbers",
    "coordinate outside 0 to 1": "coordinates outside 0 to 1",
    "id": "broken ids",
    "image": "broken image entries",
    "image file twice": "images listed more than once",
    "image id twice": "images with the id of another",
    "image of another size": "pictures of another size than the annotations say",
    "index of a shard": "shards whose index can't be read",
    "iscrowd": "broken values of iscrowd",
    "label map as JPEG": "label maps in JPEG files",
    "label map in colour": "label maps in colour",
    "label map of another size": "label maps of another size than their pictures",
    "label map of fractions": "label maps of floating-point numbers",
    "label map of ignored pixels": "label maps of ignored pixels only",
    "label map of several channels": "label maps of several channels",
    "label map with other values": "label maps with values beyond 16 bits",
    "label map with unknown values": "label maps with values of no class",
    "label map without picture": "label maps without a picture",
    "labels without a picture": "label files without a picture",
    "line of another form": "lines of another form",
    "listed file missing": "listed files that are not there",
    "missing image": "listed pictures that are not there",
    "not an object": "annotations that are none",
    "object without name or box": "objects without a name or a box",
    "picture missing or not clear": "annotations without one picture",
    "pictures of one name": "files that differ in their suffix only",
    "polygon far outside": "polygons far outside their pictures",
    "split that can't be read": "splits that can't be read",
    "unknown category": "classes that the training set does not have",
    "unknown category id": "objects of an unknown class",
    "unreadable image": "pictures that can't be read",
    "unreadable label map": "label maps that can't be read",
}
_MENDED = {
    **MENDED,
    "picture without a label file": "pictures without a label file",
    "picture without an XML file": "pictures without an XML file",
    "picture without a label map": "pictures without a label map",
    "split left out": "splits left out",
}


def shortened(name: str) -> str:
    """A name of 40 characters at most."""
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 3] + "..."


def print_findings(findings: Sequence[Finding], *, everything: bool) -> int:
    """What was mended, to stdout; what is to be mended by hand, to stderr, and its number, which is returned.

    Args:
        findings: in any order.
        everything: name every place; otherwise the first three of each kind.
    """
    mended = [finding for finding in findings if finding.is_fixed]
    refused = [finding for finding in findings if not finding.is_fixed]
    if mended:
        print("\nmended whenever the set is read:")
    for kind, lines in _grouped(mended, everything).items():
        print(f"  {_MENDED.get(kind, kind)}: {lines[0]}")
        print("\n".join(f"    {line}" for line in lines[1:]))
    print(flush=True)
    for kind, lines in _grouped(refused, everything).items():
        print(f"internimage: {_TO_MEND.get(kind, kind)}: {lines[0]}", file=sys.stderr)
        print("\n".join(f"    {line}" for line in lines[1:]), file=sys.stderr, flush=True)
    number = sum(finding.count for finding in refused)
    print(f"{number:,} to mend by hand before training" if number else "nothing to mend by hand")
    return number


def _grouped(findings: Sequence[Finding], everything: bool) -> dict[str, list[str]]:
    """Lines of each kind, in the order in which the kinds came: their number, then the places."""
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(finding.kind, []).append(finding)
    lines: dict[str, list[str]] = {}
    for kind, group in groups.items():
        shown = group if everything else group[:_EXAMPLES]
        lines[kind] = [f"{sum(finding.count for finding in group):,}", *map(str, shown)]
        if len(group) > len(shown):
            lines[kind].append(f"... and {len(group) - len(shown):,} more; --all names them")
    return lines
