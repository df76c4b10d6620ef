"""One object of an annotation file in COCO's format: read, checked, and mended where that is safe."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from internimage.data.detection.rle import Box, check_rle, segmentation_box

# Where the file's numbers leave the picture by less, they are taken as rounded.
_ROUNDING, _HAIR = 1e-6, 1.0
# COCO's tools draw an outline point by point: farther away, this takes memory without end.
_FARTHEST = 1e5
# An int in JSON may be too large for a float.
_LARGEST = 1e300


@dataclass(frozen=True)
class Finding:
    """Something wrong in an annotation file.

    Args:
        kind: what it is, in one of a few fixed short phrases.
        where: file and id, such as ``train.json: annotation 17 (image 3, a.jpg)``; empty where ``text`` says it.
        text: what is wrong, and what was done or is to do.
        is_fixed: True where it was mended and counted; False where training on the file is refused.
        count: how many entries it stands for; ``where`` names the first.
    """

    kind: str
    where: str
    text: str
    is_fixed: bool
    count: int = 1

    def __str__(self) -> str:
        more = f" (and {self.count - 1:,} more)" if self.count > 1 else ""
        return f"{self.where}: {self.text}{more}" if self.where else f"{self.text}{more}"


@dataclass(frozen=True, slots=True)
class Instance:
    """One object in a picture.

    Args:
        id: COCO's id of the annotation.
        box: x1, y1, x2, y2 in pixels of the original picture, inside it.
        label: index into the classes.
        segmentation: None, a list of polygons ``[[x, y, x, y, ...], ...]``, or a run-length encoded mask
            ``{"size": [height, width], "counts": list of int, or str}``.
        is_crowd: a region with many objects of the class, which is none itself; detectors learn nothing of it.
        area: of the object in pixels, as the file says; by default that of the box.
    """

    id: int
    box: Box
    label: int
    segmentation: Any
    is_crowd: bool = False
    area: float = -1.0

    def __post_init__(self) -> None:
        if self.area < 0:
            x1, y1, x2, y2 = self.box
            object.__setattr__(self, "area", (x2 - x1) * (y2 - y1))


@dataclass
class Findings:
    """Collects what is wrong; what a whole file has in common is kept once, with a count.

    Args:
        file: its name, before the place of every finding; empty where the place names a file of its own.
    """

    file: str
    listed: list[Finding] = field(default_factory=list)
    folded: dict[str, Finding] = field(default_factory=dict)

    def refuse(self, kind: str, entry: str, text: str) -> None:
        """Something that must be mended by hand."""
        self.listed.append(Finding(kind, self._where(entry), text, is_fixed=False))

    def fix(self, kind: str, entry: str, text: str) -> None:
        """Something that was mended."""
        self.listed.append(Finding(kind, self._where(entry), text, is_fixed=True))

    def fold(self, kind: str, entry: str, text: str, count: int = 1) -> None:
        """Something harmless that was mended and that may be there in every entry."""
        first = self.folded.get(kind) or Finding(kind, self._where(entry), text, is_fixed=True, count=0)
        self.folded[kind] = replace(first, count=first.count + count)

    def all(self) -> tuple[Finding, ...]:
        """In the file's order, then the folded ones."""
        return (*self.listed, *self.folded.values())

    def _where(self, entry: str) -> str:
        return f"{self.file}: {entry}" if self.file else entry


@dataclass(frozen=True)
class Entry:
    """A picture that the file lists; ``size`` is (height, width), or None where its entry was refused.

    ``verified`` is what a federated set says was looked for in it.
    """

    name: str
    size: tuple[int, int] | None
    verified: Any = None


class _Refused(Exception):  # noqa: N818 - control flow, not an error
    """Ends the reading of one annotation: kind, text, and whether leaving it out mends the file."""

    def __init__(self, kind: str, text: str, *, is_fixed: bool = False) -> None:
        self.kind, self.text, self.is_fixed = kind, text, is_fixed


class AnnotationReader:
    """Makes instances of the annotations of one file, one after the other.

    Args:
        entries: the file's pictures by id.
        label_of: class index of each category id, -1 for a category that was refused.
        findings: takes what is wrong.
        places: of each annotation, where its own file has it, for annotations converted from another format.
    """

    def __init__(
        self,
        entries: Mapping[int, Entry],
        label_of: Mapping[int, int],
        findings: Findings,
        places: Sequence[str] | None = None,
    ) -> None:
        self.entries, self.label_of, self.findings, self.places = entries, label_of, findings, places
        self._seen: dict[int, Any] = {}
        self._alike: dict[Any, Any] = {}

    def read(self, raw: Any, index: int) -> tuple[int, Instance] | None:
        """(image id, object), or None where there is nothing to train on.

        Args:
            raw: one item of the file's ``annotations``.
            index: its place there.
        """
        where = self._where(raw, index)
        try:
            return self._read(raw, where)
        except _Refused as refused:
            note = self.findings.fix if refused.is_fixed else self.findings.refuse
            note(refused.kind, where, refused.text)
            return None

    def _where(self, raw: Any, index: int) -> str:
        if self.places is not None:
            return self.places[index]
        number, image_id = (raw.get("id"), raw.get("image_id")) if isinstance(raw, dict) else (None, None)
        where = f"annotation {number}" if type(number) is int else f"annotations[{index}]"
        if type(image_id) is not int:
            return where
        entry = self.entries.get(image_id)
        return f"{where} (image {image_id}, {entry.name})" if entry else f"{where} (image {image_id})"

    def _read(self, raw: Any, where: str) -> tuple[int, Instance] | None:
        number, entry = self._identify(raw)
        category_id = raw.get("category_id")
        label = self.label_of.get(category_id) if type(category_id) is int else None
        if label is None:
            reason = f"its category_id {category_id!r:.40} is not in the file's categories; add the category"
            raise _Refused("unknown category id", reason)
        if entry.size is None or label < 0:
            return None
        crowd = raw.get("iscrowd")
        if crowd is None:
            self.findings.fold("iscrowd missing", where, "iscrowd is missing; taken as 0")
        elif crowd not in (0, 1):
            raise _Refused("iscrowd", f"iscrowd must be 0 or 1, got {crowd!r:.40}")
        segmentation = self._segmentation(raw.get("segmentation"), entry.size, where)
        box = self._box(raw.get("bbox"), segmentation, entry.size, where)
        image_id, is_crowd = raw["image_id"], bool(crowd)
        if self._is_alike((image_id, label, box, is_crowd), segmentation):
            raise _Refused("same object twice", "the image has the same object already; left out", is_fixed=True)
        area = raw.get("area")
        is_known = type(area) in (int, float) and 0 <= area < _LARGEST
        return image_id, Instance(number, box, label, segmentation, is_crowd, float(area) if is_known else -1.0)

    def _identify(self, raw: Any) -> tuple[int, Entry]:
        """The id of an annotation, and the picture it belongs to."""
        if not isinstance(raw, dict):
            raise _Refused("not an object", f"an annotation must be a JSON object, got {raw!r:.40}")
        number, image_id = raw.get("id"), raw.get("image_id")
        if type(number) is not int:
            raise _Refused("id", f"its id must be a whole number, got {number!r:.40}")
        if type(image_id) is not int:
            raise _Refused("id", f"its image_id must be a whole number, got {image_id!r:.40}")
        self._check_twice(number, raw)
        entry = self.entries.get(image_id)
        if entry is None:
            reason = f"the file lists no image {image_id}; left out"
            raise _Refused("annotation of no image", reason, is_fixed=True)
        return number, entry

    def _check_twice(self, number: int, raw: dict[str, Any]) -> None:
        before = self._seen.setdefault(number, raw)
        if before is raw:
            return
        if before == raw:
            raise _Refused("same object twice", "the file holds it twice; left out once", is_fixed=True)
        other = f"another annotation, of image {before.get('image_id')}, has the same id"
        raise _Refused("annotation id twice", f"{other}; give each annotation its own")

    def _is_alike(self, key: Any, segmentation: Any) -> bool:
        if key not in self._alike:
            self._alike[key] = segmentation
            return False
        return self._alike[key] == segmentation

    def _segmentation(self, given: Any, size: tuple[int, int], where: str) -> Any:
        """``given`` without polygons that are none; None where there is nothing."""
        if given is None or given == []:
            return None
        if isinstance(given, dict):
            if reason := check_rle(cast(dict[str, Any], given), size):
                raise _Refused("broken mask", f"its run-length encoded mask is broken: {reason}; export it again")
            return given
        if not isinstance(given, list):
            raise _Refused("broken mask", f"segmentation must be polygons or run lengths, got {given!r:.40}")
        polygons = cast(list[Any], given)
        reasons = [_polygon_fault(polygon) for polygon in polygons]
        faults = [reason for reason in reasons if reason]
        if not faults:
            return polygons
        if len(faults) == len(polygons):
            raise _Refused("broken polygon", f"{faults[0]}; draw it again, or remove the annotation")
        self.findings.fix("broken polygon left out", where, f"of its {len(polygons)} polygons, {faults[0]}; left out")
        return [polygon for polygon, reason in zip(polygons, reasons, strict=True) if not reason]

    def _box(self, given: Any, segmentation: Any, size: tuple[int, int], where: str) -> Box:
        """The box inside the picture."""
        if given is None or given == []:
            if segmentation is None:
                raise _Refused("box missing", "it has no bbox and no segmentation; add one, or remove it")
            self.findings.fix("box from segmentation", where, "it has no bbox; taken from its segmentation")
            x1, y1, x2, y2 = map(float, segmentation_box(segmentation))
            given = [x1, y1, x2 - x1, y2 - y1]
        else:
            x1, y1, x2, y2 = _corners(given)
        height, width = size
        over = max(-x1, -y1, x2 - width, y2 - height)
        if over > 0:
            x1, y1, x2, y2 = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
        if x2 <= x1 or y2 <= y1:
            inside = f" inside its picture of {width} x {height} pixels" if over > 0 else ""
            reason = f"its bbox {given!r:.80} has no area{inside}; left out"
            raise _Refused("box without area", reason, is_fixed=True)
        if over > _HAIR:
            text = f"its bbox {given!r:.80} leaves its picture of {width} x {height} pixels; clipped"
            self.findings.fix("box outside", where, text)
        elif over > _ROUNDING:
            text = "its bbox leaves its picture by no more than a pixel; clipped"
            self.findings.fold("box a hair outside", where, text)
        return x1, y1, x2, y2


def _corners(given: Any) -> Box:
    """x1, y1, x2, y2 of COCO's x, y, width, height."""
    if not isinstance(given, list) or len(given) != 4:
        raise _Refused("box of other than 4 numbers", f"bbox must be [x, y, width, height], got {given!r:.80}")
    if reason := _number_fault(given):
        raise _Refused("coordinate is no number", f"its bbox {given!r:.80} holds {reason}; correct it")
    x, y, width, height = map(float, given)
    return x, y, x + width, y + height


def _number_fault(numbers: list[Any]) -> str | None:
    """What in ``numbers`` is no finite number, or None."""
    for number in numbers:
        if type(number) not in (int, float):
            return f"{number!r:.40}, which is no number"
        if not -_LARGEST < number < _LARGEST:
            return f"{number!r:.40}, which is not finite"
    return None


def _polygon_fault(polygon: Any) -> str | None:
    """Why a polygon can't be drawn, or None; raises where a coordinate is no number."""
    if not isinstance(polygon, list):
        return f"one is {polygon!r:.40}, not a list of numbers"
    if len(polygon) < 6 or len(polygon) % 2:
        return f"one has {len(polygon)} numbers, and a polygon needs an even number, 6 or more"
    try:
        # One pass each in C: a file may hold a million polygons.
        if math.isfinite(sum(polygon)) and min(polygon) >= -_FARTHEST and max(polygon) <= _FARTHEST:
            return None
    except (TypeError, OverflowError):
        pass
    if reason := _number_fault(polygon):
        raise _Refused("coordinate is no number", f"its segmentation holds {reason}; correct it")
    farthest = max(polygon, key=abs)
    raise _Refused("polygon far outside", f"its segmentation holds {farthest}, far outside any picture; correct it")
