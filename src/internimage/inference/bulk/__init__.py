"""Prediction over any number of images: rows that are written as they come, and go on after a crash."""

from internimage.inference.bulk.job import Counts, Task, check_earlier, run
from internimage.inference.bulk.place import FORMATS, Format, Place, check_rows, read_rows, remove
from internimage.inference.bulk.rows import ClassRows, MapRows, ObjectRows, Row

__all__ = [
    "FORMATS",
    "ClassRows",
    "Counts",
    "Format",
    "MapRows",
    "ObjectRows",
    "Place",
    "Row",
    "Task",
    "check_earlier",
    "check_rows",
    "read_rows",
    "remove",
    "run",
]
