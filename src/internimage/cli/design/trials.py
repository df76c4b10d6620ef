"""Trainings side by side to compare networks with: each is ``internimage fit`` in a process and a folder of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import IO, Any, cast

from filelock import FileLock, Timeout
from jsonargparse import ArgumentParser, Namespace

from internimage.cli.configs import find_config, settings_in
from internimage.visualization.curves import METRICS_FILE, read_rows

SETTINGS_FILE = "settings.json"
_LOCK_FILE = ".lock"
_SECONDS_BETWEEN_LOOKS = 0.5
_FIT = (sys.executable, "-m", "internimage", "fit")
# Beside what every training is given.
_GRADIENTS = "internimage.tasks.gradients.GradientNorms"


@dataclass(frozen=True)
class Trial:
    """One training.

    Args:
        name: for people.
        run: its folder.
        arguments: of ``internimage fit``.
        epochs: after which it is done.
        is_hopeless: asked after every epoch, counted from 1, with the accuracy of the validation images; True ends the
            training there. Called in a thread of its own.
    """

    name: str
    run: Path
    arguments: tuple[str, ...]
    epochs: int
    is_hopeless: Callable[[int, float], bool] | None = None


@dataclass(frozen=True)
class Trained:
    """What came of it.

    Args:
        trial: the training.
        accuracy: of the validation images, one value in [0, 1] per epoch.
        seconds: it took, in all.
        problem: why it failed, or None.
        is_cut: whether it was ended early as hopeless.
    """

    trial: Trial
    accuracy: tuple[float, ...]
    seconds: float
    problem: str | None = None
    is_cut: bool = False


class Stopped(Exception):  # noqa: N818  # no error: somebody wanted it
    """Ctrl-C or a termination signal; the trainings have kept their state."""


def add_training_options(parser: ArgumentParser, run: str) -> None:
    """What all comparisons take.

    Args:
        parser: gets them.
        run: the folder by default.
    """
    config = "the recipe: a shipped configuration of a classification, or a file"
    parser.add_argument("--config", type=str, default="classification/cifar10_short", help=config)
    root = "folder of the images, train/CLASS and val/CLASS; the recipe's by default"
    parser.add_argument("--root", type=str | None, default=None, help=root)
    parser.add_argument("--epochs", type=int, default=9, help="of a whole training")
    jobs = "trainings at the same time; as many as there are cores, or one on a GPU, by default"
    parser.add_argument("--jobs", type=int | None, default=None, help=jobs)
    parser.add_argument(
        "--run", type=str, default=run, help="folder of the results and of every training; see --resume"
    )
    parser.add_argument("--resume", action="store_true", help="go on in a folder that holds a comparison")
    more = "further options of `internimage fit`, without their dashes, such as trainer.limit_train_batches=150"
    parser.add_argument("--fit", type=str, nargs="*", default=[], metavar="OPTION=VALUE", help=more)


def fit_arguments(
    options: Namespace, run: Path, model_options: Mapping[str, Any], seed: int, more: Sequence[str] = ()
) -> tuple[str, ...]:
    """The arguments of one training: the recipe with another network and seed.

    Args:
        options: of `add_training_options`.
        run: its folder.
        model_options: of the network, in place of the recipe's of the same names.
        seed: of weights and of the order of images.
        more: further arguments.
    """
    return (
        f"--config={options.config}",
        f"--run={run}",
        "--auto_resume",
        f"--seed_everything={seed}",
        f"--trainer.max_epochs={options.epochs}",
        f"--model.init_args.model_options={json.dumps({**recipe_model_options(options), **model_options})}",
        f"--trainer.callbacks+={_GRADIENTS}",
        *([] if options.root is None else [f"--data.init_args.root={options.root}"]),
        *(f"--{each}" for each in options.fit),
        *more,
    )


def recipe_model_options(options: Namespace) -> dict[str, Any]:
    """The network's settings in the recipe.

    Raises:
        ValueError: the recipe is no classification.
    """
    model = settings_in(str(find_config(options.config))).get("model")
    if not isinstance(model, dict) or model.get("class_path") != "ClassificationTask":
        raise ValueError(f"--config {options.config} is no recipe of a classification: candidates are compared as such")
    inner = cast(dict[str, Any], model.get("init_args") or {})
    return dict(cast(dict[str, Any], inner.get("model_options") or {}))


def image_size(trained: Iterable[Trained]) -> int:
    """Side in pixels of the pictures that these trainings saw, as the weights of one of them say.

    Raises:
        ValueError: none of them has left weights.
    """
    from internimage.model import read_checkpoint
    from internimage.tasks.checkpoints import WEIGHTS_FILE

    runs = [each.trial.run for each in trained]
    for file in (run / WEIGHTS_FILE for run in runs):
        card = read_checkpoint(file).card if file.is_file() else None
        if card is not None and card.preprocess is not None:
            return card.preprocess.size
    raise ValueError(f"no training has left weights; what they said stands in {runs[0].parent}/*.txt")


@contextmanager
def comparison_folder(options: Namespace, settings: Mapping[str, Any]) -> Iterator[Path]:
    """The comparison's folder, locked; with ``--resume`` one that holds the same comparison.

    Args:
        options: of `add_training_options`.
        settings: what must be the same when it goes on.

    Raises:
        ValueError: bad options, the folder holds another comparison, or somebody works in it.
        ImportError: what trains is not installed.
    """
    if find_spec("lightning") is None:
        raise ImportError("trainings need Lightning: pip install 'internimage-torch[design]'")
    if options.epochs < 1 or (options.jobs is not None and options.jobs < 1):
        raise ValueError(f"--epochs and --jobs must be at least 1, got {options.epochs} and {options.jobs}")
    if wrong := [each for each in options.fit if "=" not in each or each.startswith("-")]:
        raise ValueError(
            f"--fit takes OPTION=VALUE without dashes, such as data.init_args.batch_size=64; got {wrong[0]}"
        )
    folder = Path(options.run)
    # As it will be read again: JSON has no tuples.
    wanted = json.loads(json.dumps({key: options[key] for key in ("config", "root", "epochs", "fit")} | dict(settings)))
    file = folder / SETTINGS_FILE
    if folder.is_dir() and any(folder.iterdir()):
        known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
        if known is None:
            raise ValueError(f"{folder} holds something else than a comparison; choose another --run")
        if differing := [key for key in wanted if known.get(key) != wanted[key]]:
            key = differing[0]
            raise ValueError(
                f"{folder} holds another comparison ({key} was {known.get(key)!r}, is {wanted[key]!r}); "
                "choose another --run, or its options"
            )
        if not options.resume:
            raise ValueError(f"{folder} holds this comparison already; add --resume to go on, or choose another --run")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / _LOCK_FILE, timeout=0):
            file.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
            yield folder
    except Timeout:
        raise ValueError(f"another process works in {folder}; wait for it, or choose another --run") from None


def train_all(trials: Iterator[Trial], jobs: int | None, done: Callable[[Trained], None]) -> None:
    """Train them, ``jobs`` at a time; those that are trained already are read.

    Args:
        trials: asked for the next one whenever a process is free, in this thread.
        jobs: None for one per core, or one on a GPU.
        done: told of each as it ends, in this thread.

    Raises:
        Stopped: Ctrl-C or a termination signal. The trainings end after their step and keep their state.
    """
    count = _processes() if jobs is None else jobs
    workers = _Workers(max(1, (os.cpu_count() or 1) // count))
    running: set[Future[Trained]] = set()
    with ThreadPoolExecutor(count) as pool, workers.stopped_by_signals():
        waiting = iter(trials)
        while True:
            while len(running) < count and (trial := next(waiting, None)) is not None:
                running.add(pool.submit(workers.train, trial))
            if not running:
                return
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            results = [each.result() for each in ended]
            if workers.is_stopped:
                wait(running)
                raise Stopped
            for result in results:
                done(result)


class _Workers:
    """Processes of trainings, and how they are told to stop."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self.is_stopped = False

    def train(self, trial: Trial) -> Trained:
        """Run ``internimage fit`` to its end; what it says goes into a file beside its folder."""
        judge = _Judge(trial)
        if judge.is_over():
            return judge.result(None)
        trial.run.mkdir(parents=True, exist_ok=True)
        said = trial.run.parent / f"{trial.run.name}.txt"
        with said.open("ab") as output:
            process = self._start(trial, output)
            if process is None:
                return judge.result("stopped")
            while (status := process.poll()) is None:
                time.sleep(_SECONDS_BETWEEN_LOOKS)
                if judge.is_over() and judge.is_cut:
                    process.terminate()
                    status = process.wait()
                    break
        with self._lock:
            self._processes.discard(process)
        judge.is_over()
        failed = status != 0 and not judge.is_cut
        return judge.result((_last_line(said) or f"exit status {status}") if failed else None)

    def _start(self, trial: Trial, output: IO[bytes]) -> subprocess.Popen[bytes] | None:
        command = [*_FIT, *trial.arguments]
        environment = os.environ | {"OMP_NUM_THREADS": str(self._threads)}
        with self._lock:
            if self.is_stopped:
                return None
            # A session of its own: Ctrl-C reaches it through us, once.
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
            self._processes.add(process)
            return process

    @contextmanager
    def stopped_by_signals(self) -> Iterator[None]:
        """Within it, Ctrl-C and SIGTERM tell every training to end after its step."""
        before = {each: signal.signal(each, self._stop) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        except BaseException:
            self._stop(signal.SIGTERM, None)
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.is_stopped = True
        # Without the lock: a handler runs within whatever holds it.
        for process in list(self._processes):
            if process.poll() is None:
                process.terminate()


def _processes() -> int:
    import torch

    return 1 if torch.cuda.is_available() else os.cpu_count() or 1


def _rows(run: Path) -> list[dict[str, float]]:
    return read_rows(run / METRICS_FILE) if (run / METRICS_FILE).is_file() else []


class _Judge:
    """Follows a training by the rows that it writes."""

    def __init__(self, trial: Trial) -> None:
        self._trial, self._heard = trial, 0
        self.is_cut = False

    def is_over(self) -> bool:
        """Whether it has all its epochs, or is hopeless."""
        rows = _rows(self._trial.run)
        if self._trial.is_hopeless is not None:
            for number in range(self._heard + 1, len(rows) + 1):
                accuracy = rows[number - 1].get("val/accuracy", 0.0)
                # No use in cutting off what is done.
                self.is_cut |= self._trial.is_hopeless(number, accuracy) and number < self._trial.epochs
                if self.is_cut:
                    break
        self._heard = len(rows)
        return self.is_cut or len(rows) >= self._trial.epochs

    def result(self, problem: str | None) -> Trained:
        """What came of it."""
        return read_trained(self._trial, problem, is_cut=self.is_cut)


def read_trained(trial: Trial, problem: str | None = None, *, is_cut: bool = False) -> Trained:
    """What a training's folder says of it."""
    rows = _rows(trial.run)
    accuracy = tuple(row["val/accuracy"] for row in rows if "val/accuracy" in row)
    return Trained(trial, accuracy, rows[-1]["seconds"] if rows else 0.0, problem, is_cut)


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.removeprefix("internimage: ") for line in reversed(lines) if line.strip()), "")


class Progress:
    """Says how far it is, and how long it may take.

    Args:
        total: number of trainings, or None where nobody knows.
    """

    def __init__(self, total: int | None) -> None:
        self._total, self._count, self._started = total, 0, time.monotonic()

    def tell(self, trained: Trained) -> None:
        """One line for a training that has ended."""
        self._count += 1
        of_all = f"{self._count}" if self._total is None else f"{self._count}/{self._total}"
        minutes = (time.monotonic() - self._started) / 60
        best = f"{max(trained.accuracy):.1%}" if trained.accuracy else "nothing"
        ending = "" if trained.problem is None else f"; failed: {trained.problem}"
        epochs = f"{len(trained.accuracy)}/{trained.trial.epochs} epochs"
        print(f"{of_all:>6}  {trained.trial.name:<40} {best:>6}  {epochs}  {minutes:5.1f} min{ending}", flush=True)
