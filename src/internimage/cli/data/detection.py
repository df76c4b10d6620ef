"""``internimage data check`` of objects: COCO, Pascal VOC and YOLO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from internimage.cli.data.printing import print_findings, table
from internimage.data.detection.coco import Finding, deep_check
from internimage.data.detection.formats import Format
from internimage.data.detection.survey import Survey, survey_file, survey_folder

_FORMATS: dict[Format, str] = {
    "coco": "COCO's format",
    "voc": "Pascal VOC (difficult objects count as crowds)",
    "yolo": "YOLO",
}
_MOST_CLASSES = 60


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
        for note in _notes(path, surveys):
            print(note)
        print(flush=True)
    read = list(findings)
    for survey in surveys:
        bad = deep_check(survey.found)
        read += bad
        all_of_them = f"{survey.num_pictures - len(bad):,} of {survey.num_pictures:,} pictures are as annotated"
        print(f"{survey.name}: {all_of_them}", flush=True)
    number = print_findings(read, everything=everything)
    print(f"\n{number:,} to mend by hand before training" if number else "\nnothing to mend by hand")
    return 1 if number else 0


def _print_counts(surveys: Sequence[Survey]) -> None:
    header = ["split", "pictures", "without objects", "objects", "classes", "crowds", "masks"]
    rows = [
        [each.name, *(f"{number:,}" for number in _numbers(each))]
        for each in surveys
    ]
    print("", *table(header, rows), sep="\n")


def _numbers(survey: Survey) -> tuple[int, ...]:
    classes = len(survey.num_per_class)
    return survey.num_pictures, survey.num_empty, survey.num_objects, classes, survey.num_crowds, survey.num_masks


def _print_classes(surveys: Sequence[Survey], everything: bool) -> None:
    names = dict.fromkeys(name for survey in surveys for name in survey.found.labels)
    shown = list(names) if everything else list(names)[:_MOST_CLASSES]
    rows = [[name, *(f"{survey.num_per_class[name]:,}" for survey in surveys)] for name in shown]
    print("", *table(["objects of", *(survey.name for survey in surveys)], rows), sep="\n")
    if len(names) > len(shown):
        print(f"... and {len(names) - len(shown):,} more classes; --all names them")
