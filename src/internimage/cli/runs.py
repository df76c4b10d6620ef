"""``internimage runs``: what has been trained, side by side."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from internimage.cli.configs import flattened, settings_in
from internimage.cli.tables import table
from internimage.cli.training.provenance import read_starts
from internimage.cli.training.run_folder import CONFIG_FILE, METRICS_FILE, WEIGHTS_FILE
from internimage.tasks import BaseTask, ClassificationTask
from internimage.tasks.callbacks import read_rows
from internimage.tasks.detection import DetectionTask
from internimage.tasks.segmentation import SegmentationTask

# Where a run names its folder, itself, what it does by the way, and what its commands leave: nothing it learns from.
_SWITCHES = ("resume", "overwrite", "auto_resume", "print_groups")
_IDLE = ("run", "wandb", "save_every_minutes", "timeout_minutes", *_SWITCHES)
_TASKS: dict[str, type[BaseTask]] = {
    task.__name__: task for task in (ClassificationTask, DetectionTask, SegmentationTask)
}
_SORTS = ("name", "best", "time", "started")
_ABSENT = "-"


@dataclass(frozen=True)
class Run:
    """What a run's folder says of it.

    Args:
        folder: where it lies.
        task: the short name of its task's class.
        model: the network's name.
        data: where its images come from.
        metric: what says which epoch was best.
        best: its largest value, or NaN where nothing was measured.
        best_epoch: in which epoch, counted from 1; 0 where nothing was measured.
        epochs: that were trained.
        of: that were asked for, or -1.
        minutes: of training.
        started: when, in ISO's notation, or empty.
        commit: of the code, with ``+`` where files had been changed; or empty.
        done: it has exported its weights.
        settings: all settings by their dotted names.
    """

    folder: str
    task: str
    model: str
    data: str
    metric: str
    best: float
    best_epoch: int
    epochs: int
    of: int
    minutes: float
    started: str
    commit: str
    done: bool
    settings: Mapping[str, Any]


def main(arguments: Sequence[str]) -> int:
    """Print a table of runs; returns the exit status."""
    parser = ArgumentParser(prog="internimage runs", description="Compare runs.")
    parser.add_argument("folders", nargs="*", default=["runs"], help="runs, or folders of runs; runs/ by default")
    parser.add_argument("--sort", type=str, default="best", help=f"by {', '.join(_SORTS)}")
    parser.add_argument("--settings", action="store_true", help="also print the settings in which they differ")
    parser.add_argument("--json", action="store_true", help="print all that is known as JSON")
    options = parser.parse_args(list(arguments))
    if options.sort not in _SORTS:
        raise ValueError(f"--sort must be one of {', '.join(_SORTS)}; got {options.sort!r}")
    runs = sort([read_run(folder) for folder in find_runs(options.folders)], options.sort)
    if options.json:
        print(json.dumps([_plain(run) for run in runs], indent=1, ensure_ascii=False))
        return 0
    print("\n".join(compare(runs)))
    if options.settings:
        print()
        print("\n".join(differences(runs)))
    return 0


def find_runs(folders: Iterable[str | Path]) -> list[Path]:
    """The runs that the folders are or hold, also deeper, each once.

    Raises:
        ValueError: a folder that is not there, or holds no run.
    """
    found: dict[Path, Path] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise ValueError(f"there is no folder {folder}; give runs, or folders that hold them")
        configs = [folder / CONFIG_FILE] if (folder / CONFIG_FILE).is_file() else sorted(folder.rglob(CONFIG_FILE))
        runs = [config.parent for config in configs if "model" in settings_in(str(config))]
        if not runs:
            raise ValueError(f"{folder} holds no run: no folder with a {CONFIG_FILE}; `internimage fit` makes one")
        found |= {run.resolve(): run for run in runs}
    return list(found.values())


def read_run(folder: Path) -> Run:
    """What a run's folder says of it; what is missing in it is left empty."""
    config = settings_in(str(folder / CONFIG_FILE))
    flat = flattened(config)
    task = str(flat.get("model.class_path", "")).rpartition(".")[2]
    metric = _TASKS[task].monitor if task in _TASKS else BaseTask.monitor
    rows = read_rows(folder / METRICS_FILE)
    measured = [(row[metric], int(row["epoch"]) + 1) for row in rows if metric in row]
    best, best_epoch = max(measured, key=lambda each: each[0], default=(math.nan, 0))
    first = next(iter(read_starts(folder)), {})
    code: Mapping[str, Any] = first.get("code") or {}
    return Run(
        folder=str(folder),
        task=task,
        model=str(flat.get("model.init_args.model", _ABSENT)).removeprefix("internimage_"),
        data=str(flat.get("data.init_args.root", _ABSENT)),
        metric=metric.removeprefix("val/"),
        best=best,
        best_epoch=best_epoch,
        epochs=int(rows[-1]["epoch"]) + 1 if rows else 0,
        of=int(flat.get("trainer.max_epochs") or -1),
        minutes=rows[-1].get("seconds", 0.0) / 60 if rows else 0.0,
        started=str(first.get("time", "")),
        commit=str(code.get("commit", ""))[:9] + ("+" if code.get("changed") else ""),
        done=(folder / WEIGHTS_FILE).is_file(),
        settings=flat,
    )


def sort(runs: Sequence[Run], key: str) -> list[Run]:
    """Best first within each metric, or longest, or latest, or by name."""
    if key == "best":
        # A run without a number comes last.
        return sorted(runs, key=lambda run: (run.metric, math.isnan(run.best), -run.best, run.folder))
    if key == "time":
        return sorted(runs, key=lambda run: -run.minutes)
    return sorted(runs, key=lambda run: run.started, reverse=True) if key == "started" else sorted(runs, key=_name)


def _name(run: Run) -> str:
    return run.folder


def compare(runs: Sequence[Run]) -> list[str]:
    """Aligned lines: a run each."""
    head = ["run", "model", "data", "best", "", "in epoch", "epochs", "minutes", "started", "code", ""]
    rows = [
        [
            run.folder,
            run.model,
            Path(run.data).name,
            _ABSENT if math.isnan(run.best) else f"{100 * run.best:.2f}%",
            run.metric,
            str(run.best_epoch or _ABSENT),
            f"{run.epochs}/{run.of}" if run.of > 0 else str(run.epochs),
            f"{run.minutes:.1f}",
            run.started[:16].replace("T", " ") or _ABSENT,
            run.commit or _ABSENT,
            "" if run.done else "not finished",
        ]
        for run in runs
    ]
    return table(head, rows)


def differences(runs: Sequence[Run]) -> list[str]:
    """A line per setting that is not the same in all runs, with its value in each."""
    names = sorted({name for run in runs for name in run.settings} - set(_IDLE))
    differing = [name for name in names if len({_shown(run, name) for run in runs}) > 1]
    if not differing:
        return ["no setting differs"]
    return table(
        ["setting", *(Path(run.folder).name for run in runs)], [[n, *(_shown(r, n) for r in runs)] for n in differing]
    )


def _shown(run: Run, name: str) -> str:
    value = run.settings.get(name, _ABSENT)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _plain(run: Run) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and math.isnan(value) else value for key, value in asdict(run).items()
    }
