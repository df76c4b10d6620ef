"""What a detection set of any format holds, and everything that is wrong in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from internimage.data.detection.coco import UNLISTED, CocoSet, Finding, find_coco, read_coco, read_content
from internimage.data.detection.files import SPLITS, coco_files
from internimage.data.detection.formats import Format, MisreadError, Other, convert_split, splits_of
from internimage.data.detection.formats.voc import unannotated_pictures
from internimage.data.detection.formats.yolo import unlabelled_folders
from internimage.structures import LabelMap


@dataclass(frozen=True)
class Survey:
    """One annotation file, or one split of a set in another format.

    Args:
        name: of the split, or of the file.
        found: what could be read.
    """

    name: str
    found: CocoSet

    @property
    def num_pictures(self) -> int:
        """Number of pictures, without those that were refused."""
        return len(self.found.pictures)

    @property
    def num_empty(self) -> int:
        """Number of pictures without objects; one with crowds alone has none."""
        return sum(all(each.is_crowd for each in picture.instances) for picture in self.found.pictures)

    @property
    def num_objects(self) -> int:
        """Number of objects, without crowds."""
        return self.num_per_class.total()

    @cached_property
    def num_per_class(self) -> Counter[str]:
        """Number of objects of each class, without crowds."""
        instances = (each for picture in self.found.pictures for each in picture.instances if not each.is_crowd)
        return Counter(self.found.labels[each.label] for each in instances)

    @property
    def num_crowds(self) -> int:
        """Number of crowd regions."""
        return sum(each.is_crowd for picture in self.found.pictures for each in picture.instances)

    @property
    def num_clipped(self) -> int:
        """Number of boxes that left their pictures by more than a pixel."""
        return sum(finding.kind == "box outside" for finding in self.found.findings)

    @property
    def num_masks(self) -> int:
        """Number of objects and crowds with a mask."""
        instances = (each for picture in self.found.pictures for each in picture.instances)
        return sum(each.segmentation is not None for each in instances)


def survey_file(annotations: Path, images: Path | None) -> tuple[list[Survey], list[Finding]]:
    """What one annotation file in COCO's format holds, and what is wrong in it.

    Args:
        annotations: the file.
        images: the folder that its file names are relative to; None looks where `find_coco` looks.

    Raises:
        ValueError: the file can't be read as COCO's, or ``images`` is None and the pictures are not found.
    """
    found = read_coco(annotations, images or _images_of(annotations))
    return [Survey(annotations.name, found)], list(found.findings)


def survey_folder(root: Path, format: Format) -> tuple[list[Survey], list[Finding]]:
    """What each split of a folder holds, and what is wrong in all of them; pictures are not opened yet.

    A split that can't be read at all is a finding; the classes are those of the first split that can.

    Args:
        root: the folder.
        format: as `detect_format` gives it.

    Raises:
        ValueError: Pascal VOC's files name no classes, or YOLO's class names can't be read.
    """
    return _coco_splits(root) if format == "coco" else _converted_splits(root, format)


def _images_of(annotations: Path) -> Path:
    for root in (annotations.parent.parent, annotations.parent):
        for split in SPLITS:
            if coco_files(root, split) == [annotations]:
                # Without pictures there, they may be in the other folder.
                with suppress(ValueError):
                    if found := find_coco(root, split):
                        return found[1]
    raise ValueError(f"say where the pictures of {annotations} are: --images FOLDER")


def _coco_splits(root: Path) -> tuple[list[Survey], list[Finding]]:
    surveys: list[Survey] = []
    refused: list[Finding] = []
    labels: LabelMap | None = None
    for split in SPLITS:
        try:
            files = find_coco(root, split)
            found = read_coco(*files, labels=labels) if files else None
        except ValueError as error:
            refused.append(Finding("split that can't be read", split, str(error), is_fixed=False))
            continue
        if found is not None:
            labels = labels or found.labels
            surveys.append(Survey(split, found))
    return surveys, [*refused, *_findings(surveys)]


def _converted_splits(root: Path, format: Other) -> tuple[list[Survey], list[Finding]]:
    surveys: list[Survey] = []
    findings: list[Finding] = []
    faults: list[MisreadError] = []
    for split in splits_of(root, format, faults):
        converted = convert_split(root, format, split, faults)
        if not converted.content["categories"]:
            if not faults:
                raise ValueError(f"{root}: no XML file has an object, so there are no classes to learn")
            continue
        found = read_content(converted.content, root, root, places=converted.places)
        surveys.append(Survey(split, found))
        findings += [each for each in found.findings if each.kind != UNLISTED]
        findings += _together("picture without a label file", converted.without_file, "taken as without objects")
    if format == "voc":
        findings += _together("picture without an XML file", unannotated_pictures(root), "it is not used")
    elif format == "yolo":
        findings += _together("split left out", unlabelled_folders(root), "it has no labels beside it; left out")
    # A file of one split may be read for each of them, for its classes.
    refused = {str(fault): Finding(fault.kind, "", str(fault), is_fixed=False) for fault in faults}
    return surveys, [*refused.values(), *findings]


def _together(kind: str, paths: Sequence[Path], text: str) -> list[Finding]:
    """One finding for all of them, which the first stands for."""
    return [Finding(kind, str(paths[0]), text, is_fixed=True, count=len(paths))] if paths else []


def _findings(surveys: list[Survey]) -> list[Finding]:
    """Those of all splits; a picture that another split lists is no news."""
    listed = {picture.path for survey in surveys for picture in survey.found.pictures}
    findings: list[Finding] = []
    seen = set[Path]()
    for survey in surveys:
        findings += [each for each in survey.found.findings if each.kind != UNLISTED]
        unlisted = sorted(set(survey.found.unlisted) - listed - seen)
        seen.update(unlisted)
        old = next((each for each in survey.found.findings if each.kind == UNLISTED), None)
        if unlisted and old is not None:
            where = f"{survey.found.path.name}: {unlisted[0]}"
            findings.append(replace(old, where=where, count=len(unlisted)))
    return findings
