"""``internimage data check`` of objects: COCO, Pascal VOC, YOLO, CrowdHuman and OpenImages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from internimage.cli.data.printing import print_findings, shortened
from internimage.cli.tables import table
from internimage.data.detection.coco import Finding, deep_check
from internimage.data.detection.formats import Format
from internimage.data.detection.survey import Survey, survey_file, survey_folder

_FORMATS: dict[Format, str] = {
    "coco": "COCO's format",
    "voc": "Pascal VOC (difficult objects count as crowds)",
    "yolo": "YOLO",
    "crowdhuman": "CrowdHuman (full bodies; what is ignored counts as crowds)",
    "openimages": "OpenImages (groups count as crowds)",
}
_MOST_CLASSES = 60
# So many can hardly be slips.
_MANY_CLIPPED = 0.2


def check_objects_file(annotations: Path, images: Path | None, *, everything: bool) -> int:
    """Print what one annotation file in COCO's format holds and what is wrong; 1 where something is to be mended.

    Raises:
        ValueError: the file can't be read as COCO's, or the folder of the pictures is not known.
    """
    surveys, findings = survey_file(annotations, images)
    return _report(annotations, "coco", surveys, findings, everything=everything)


def check_objects(root: Path, format: Format, *, everything: bool) -> int:
    """Print what a folder's splits hold and what is wrong in them; 1 where something is to be mended, else 0."""
    surveys, findings = survey_folder(root, format)
    return _report(root, format, surveys, findings, everything=everything)


def _report(
    path: Path, format: Format, surveys: Sequence[Survey], findings: Sequence[Finding], *, everything: bool
) -> int:
    print(f"{path}: detection, {_FORMATS[format]}")
    if surveys:
        _print_counts(surveys)
        _print_classes(surveys, everything)
        notes = _notes(surveys, has_splits=path.is_dir())
        if format != "coco":
            notes.append(f"training reads COCO's format: convert it with `internimage data coco {path} OUTPUT`")
        print(*["", *(f"note: {note}" for note in notes)] if notes else [], "", sep="\n", flush=True)
    read = list(findings)
    for survey in surveys:
        bad = deep_check(survey.found)
        read += bad
        if survey.num_pictures:
            good = f"{survey.num_pictures - len(bad):,} of {survey.num_pictures:,} pictures"
            print(f"{survey.name}: {good} can be read and have the annotated size", flush=True)
    return 1 if print_findings(read, everything=everything) else 0


def _print_counts(surveys: Sequence[Survey]) -> None:
    header = ["split", "pictures", "without objects", "objects", "classes", "crowds", "masks"]
    rows = [[each.name, *(f"{number:,}" for number in _numbers(each))] for each in surveys]
    print("", *table(header, rows), sep="\n")


def _numbers(survey: Survey) -> tuple[int, ...]:
    classes = len(survey.num_per_class)
    return survey.num_pictures, survey.num_empty, survey.num_objects, classes, survey.num_crowds, survey.num_masks


def _print_classes(surveys: Sequence[Survey], everything: bool) -> None:
    names = dict.fromkeys(name for survey in surveys for name in survey.found.labels)
    shown = list(names) if everything else list(names)[:_MOST_CLASSES]
    rows = [[shortened(name), *(f"{survey.num_per_class[name]:,}" for survey in surveys)] for name in shown]
    print("", *table(["objects of", *(survey.name for survey in surveys)], rows), sep="\n")
    if len(names) > len(shown):
        print(f"... and {len(names) - len(shown):,} more classes; --all names them")


def _notes(surveys: Sequence[Survey], *, has_splits: bool) -> list[str]:
    """What is no fault, and yet good to know before training."""
    notes: list[str] = []
    first = surveys[0]
    if not first.num_objects:
        notes.append(f"{first.name} has no objects at all: there is nothing to learn")
    elif unseen := [name for name in first.found.labels if not first.num_per_class[name]]:
        shown = ", ".join(map(shortened, unseen[:5])) + (", ..." if len(unseen) > 5 else "")
        notes.append(f"{first.name} has no objects of {shown}")
    regions = first.num_objects + first.num_crowds
    if first.num_clipped > _MANY_CLIPPED * regions:
        share = f"{first.num_clipped:,} of {regions:,} boxes of {first.name} leave their pictures"
        notes.append(f"{share}: COCO's are x, y, width, height, not two corners")
    if 0 < first.num_masks < regions:
        share = f"{first.num_masks:,} of {regions:,} objects and crowds of {first.name} have masks"
        notes.append(f"{share}: boxes alone are learned unless all have one")
    owners: dict[Path, str] = {}
    twice = Counter[tuple[str, str]]()
    for survey in surveys:
        for picture in survey.found.pictures:
            if (owner := owners.setdefault(picture.path, survey.name)) != survey.name:
                twice[owner, survey.name] += 1
    notes += [
        f"{count:,} pictures are in {a} and in {b}: measured there, results are too good"
        for (a, b), count in twice.items()
    ]
    if has_splits and (missing := {"train", "val"} - {survey.name for survey in surveys}):
        notes.append(f"there is no {' and no '.join(sorted(missing))} split, and training needs both train and val")
    return notes
