"""What the questions have in common: numbers with units, where results go, and on what they were measured."""

from __future__ import annotations

import os
import platform
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace

import internimage
from internimage.cli.training.provenance import describe_start

_UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12}
_COUNT = re.compile(r"(\d+(?:\.\d+)?(?:e\d+)?)\s*([KMGBT]?)", re.IGNORECASE)


def read_count(text: str, option: str) -> int:
    """A number as people write it.

    Args:
        text: such as ``"30M"``, ``"0.5M"``, ``"1.2B"``, ``"16G"`` or ``"25000"``.
        option: for the error.

    >>> read_count("0.5M", "--budget"), read_count("1.2b", "--budget"), read_count("300", "--budget")
    (500000, 1200000000, 300)
    """
    found = _COUNT.fullmatch(text.strip())
    if found is None or (count := round(float(found[1]) * _UNITS[found[2].upper()])) < 1:
        raise ValueError(f"{option} must be a positive number with or without K, M, B, G or T, as 30M; got {text!r}")
    return count


def in_units(count: float) -> str:
    """The same the other way round, to three digits.

    >>> in_units(29_918_424), in_units(1_089_636_760), in_units(498_000), in_units(512)
    ('29.9M', '1.09B', '498K', '512')
    """
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        # What three digits round up to the next unit is written in that.
        if count >= 0.9995 * unit:
            digits = 2 if count < 9.995 * unit else 1 if count < 99.95 * unit else 0
            return f"{count / unit:.{digits}f}{name}"
    return f"{count:g}"


def add_network(parser: ArgumentParser, size: int = 224) -> None:
    """What every network has beside its design."""
    parser.add_argument("--size", type=int, default=size, help="side of the square images in pixels")
    parser.add_argument("--num_classes", type=int, default=1000, help="outputs of the classifier")
    strides = "of the stem's two convolutions; small images want 1 2 or 1 1"
    parser.add_argument("--stem_strides", type=int, nargs=2, default=[2, 2], help=strides)


def network_settings(options: Namespace) -> dict[str, Any]:
    """Fields of `InternImageConfig` from `add_network`'s options."""
    if options.size < 1:
        raise ValueError(f"--size must be at least 1, got {options.size}")
    return {"num_classes": options.num_classes, "stem_strides": tuple(options.stem_strides)}


def add_output(parser: ArgumentParser, stem: str) -> None:
    """Where results go."""
    parser.add_argument("--output", type=str, default=stem, help=f"folder for {stem}.md, .json and .png")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")


def output_files(options: Namespace, stem: str, suffixes: Sequence[str] = ("md", "json", "png")) -> list[Path]:
    """The files to write, before any work is done; makes their folder.

    Raises:
        ValueError: one of them is there already.
    """
    folder = Path(options.output)
    files = [folder / f"{stem}.{suffix}" for suffix in suffixes]
    there = [file.name for file in files if file.exists()]
    if there and not options.overwrite:
        raise ValueError(f"{folder} holds {', '.join(there)} already; choose another --output or pass --overwrite")
    folder.mkdir(parents=True, exist_ok=True)
    return files


def describe_run(question: str, options: Namespace) -> dict[str, str]:
    """Facts about this run, in the order in which a person asks for them; the command with every option spelled out."""
    words = ["internimage", "design", question]
    for name, value in vars(options).items():
        # Where results go says nothing of them.
        if value is None or value is False or name in ("output", "overwrite"):
            continue
        values: list[Any] = value if isinstance(value, list) else [value]
        words += [f"--{name}", *(() if value is True else map(str, values))]
    found = describe_start(words, resumed=False, processes=1)
    code, machine = found["code"], found["machine"]
    commit = "unknown (no git here)" if code is None else code["commit"] + " with changes" * code["changed"]
    packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    return {
        "date": found["time"],
        "command": shlex.join(words),
        "source": f"internimage {internimage.__version__}, commit {commit}",
        "processor": f"{machine['cpu']}, {machine['cores']} cores",
        "GPUs": ", ".join(machine["devices"]) or "none",
        "threads": f"{machine['threads']} of PyTorch",
        "load before": f"{os.getloadavg()[0]:.1f} programs wanted a core in the last minute"
        if hasattr(os, "getloadavg")
        else "unknown",
        "system": platform.platform(terse=True),
        "versions": f"Python {found['python']}, {packages}, built as torch {torch.__version__}",
    }


def accuracy_in_words(mean: float, spread: float | None) -> str:
    """An accuracy in percent, with the standard deviation of its seeds if there are several.

    >>> accuracy_in_words(0.4512, 0.012), accuracy_in_words(0.5, None)
    ('45.1 ± 1.2%', '50.0%')
    """
    return f"{100 * mean:.1f}%" if spread is None else f"{100 * mean:.1f} ± {100 * spread:.1f}%"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for a page: the first column to the left, the others to the right.

    >>> print(markdown_table(["a", "b"], [["x", "1"]]))
    | a | b |
    | --- | ---: |
    | x | 1 |
    """
    lines = [list(header), ["---", *["---:"] * (len(header) - 1)], *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
