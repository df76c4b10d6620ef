"""Trainings side by side: who is started, read, cut off, stopped; with processes that only write rows."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ArgumentParser, Namespace

from internimage.cli.design import trials
from internimage.cli.design.trials import (
    Stopped,
    Trained,
    Trial,
    add_training_options,
    comparison_folder,
    fit_arguments,
    image_size,
    train_all,
)

# In place of a training: RUN FIRST_ACCURACY EPOCHS SECONDS_PER_EPOCH writes a row per epoch, each a tenth better.
SCRIPT = """
import sys, time, signal
from pathlib import Path
run, first, epochs, pause = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
if first < 0:
    print("warming up")
    sys.exit("internimage: the loss is not finite at step 7")
rows = ["epoch,val/accuracy,seconds"]
for epoch in range(epochs):
    time.sleep(pause)
    rows.append(f"{epoch},{first + epoch / 10:.2f},{epoch + 1}")
    (run / "metrics.partial").write_text(chr(10).join(rows))
    (run / "metrics.partial").replace(run / "metrics.csv")
"""


@pytest.fixture(autouse=True)
def writers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "_FIT", (sys.executable, "-c", SCRIPT))
    monkeypatch.setattr(trials, "_SECONDS_BETWEEN_LOOKS", 0.02)


def trial(folder: Path, name: str, first: float, pause: float = 0.0, epochs: int = 3, **more: Any) -> Trial:
    run = folder / name
    return Trial(name, run, (str(run), str(first), str(epochs), str(pause)), epochs, **more)


def trained(each: list[Trial], jobs: int = 2) -> dict[str, Trained]:
    found: dict[str, Trained] = {}
    train_all(iter(each), jobs, lambda one: found.update({one.trial.name: one}))
    return found


def test_each_is_trained_and_read_again_without_training(tmp_path: Path) -> None:
    wanted = [trial(tmp_path, "a", 0.2), trial(tmp_path, "b", 0.4), trial(tmp_path, "c", 0.1)]
    found = trained(wanted)
    assert {name: each.accuracy for name, each in found.items()} == {
        "a": (0.2, 0.3, 0.4),
        "b": (0.4, 0.5, 0.6),
        "c": (0.1, 0.2, 0.3),
    }
    assert found["a"].seconds == 3
    assert found["a"].problem is None
    before = (tmp_path / "a" / "metrics.csv").stat().st_mtime_ns
    assert trained(wanted) == found
    assert (tmp_path / "a" / "metrics.csv").stat().st_mtime_ns == before


def test_a_failure_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    found = trained([trial(tmp_path, "bad", -1), trial(tmp_path, "good", 0.5)])
    assert found["bad"].problem == "the loss is not finite at step 7"
    assert found["bad"].accuracy == ()
    assert "warming up" in (tmp_path / "bad.txt").read_text()
    assert found["good"].accuracy == (0.5, 0.6, 0.7)


def test_the_hopeless_are_cut_off_where_they_stand(tmp_path: Path) -> None:
    heard: list[tuple[int, float]] = []

    def is_hopeless(epoch: int, accuracy: float) -> bool:
        heard.append((epoch, accuracy))
        return epoch == 2

    found = trained([trial(tmp_path, "slow", 0.2, pause=0.3, epochs=50, is_hopeless=is_hopeless)])["slow"]
    assert heard == [(1, 0.2), (2, 0.3)]
    assert found.is_cut
    assert found.problem is None
    assert 2 <= len(found.accuracy) < 50


def test_the_last_epoch_is_never_cut(tmp_path: Path) -> None:
    found = trained([trial(tmp_path, "a", 0.2, is_hopeless=lambda epoch, _: epoch == 3)])["a"]
    assert (len(found.accuracy), found.is_cut) == (3, False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_all_trainings(tmp_path: Path, number: int) -> None:
    """Also those that wait for a process; and what was measured stays."""

    def interrupt() -> None:
        while not (tmp_path / "a" / "metrics.csv").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    told: list[Trained] = []
    thread = threading.Thread(target=interrupt)
    thread.start()
    started = time.monotonic()
    with pytest.raises(Stopped):
        train_all((trial(tmp_path, name, 0.2, pause=0.1, epochs=600) for name in "abcd"), 2, told.append)
    thread.join()
    assert time.monotonic() - started < 30
    assert not told
    assert (tmp_path / "a" / "metrics.csv").exists()
    assert not (tmp_path / "c").exists()


def test_without_weights_there_is_no_size(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no training has left weights; what they said stands in .*\*\.txt"):
        image_size(trained([trial(tmp_path, "a", -1)]).values())


def options(run: Path, *more: str) -> Namespace:
    parser = ArgumentParser(exit_on_error=False)
    add_training_options(parser, str(run))
    return parser.parse_args(["--config", "smoke/classification", *more])


def test_the_recipe_with_another_network_and_seed(tmp_path: Path) -> None:
    given = options(tmp_path, "--epochs", "4", "--root", "here", "--fit", "data.init_args.batch_size=8")
    found = fit_arguments(given, tmp_path / "x", {"channels": 8, "depths": (1, 1, 2, 1)}, 5)
    assert '--model.init_args.model_options={"stem_strides": [2, 2], "channels": 8, "depths": [1, 1, 2, 1]}' in found
    assert {"--seed_everything=5", "--trainer.max_epochs=4", "--data.init_args.root=here"} <= set(found)
    assert "--data.init_args.batch_size=8" in found


def enter(given: Namespace, settings: dict[str, Any]) -> Path:
    with comparison_folder(given, settings) as folder:
        return folder


def test_a_folder_holds_one_comparison(tmp_path: Path) -> None:
    run, same = tmp_path / "run", {"design": (8, 4)}
    with comparison_folder(options(run), same), pytest.raises(ValueError, match="another process works"):
        enter(options(run, "--resume"), same)
    with pytest.raises(ValueError, match="holds this comparison already; add --resume"):
        enter(options(run), same)
    assert enter(options(run, "--resume"), same) == run
    with pytest.raises(ValueError, match=r"another comparison \(epochs was 9, is 2\)"):
        enter(options(run, "--resume", "--epochs", "2"), same)
    (tmp_path / "mine").write_text("")
    with pytest.raises(ValueError, match="holds something else than a comparison"):
        enter(options(tmp_path), {})


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--epochs", "0"], "--epochs and --jobs must be at least 1, got 0 and None"),
        (["--jobs", "0"], "at least 1, got 9 and 0"),
        (["--fit", "batch_size"], "--fit takes OPTION=VALUE without dashes"),
    ],
)
def test_bad_options(tmp_path: Path, more: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        enter(options(tmp_path / "run", *more), {})
    assert not (tmp_path / "run").exists()


def test_only_classifications_are_compared(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="smoke/detection is no recipe of a classification"):
        fit_arguments(options(tmp_path, "--config", "smoke/detection"), tmp_path, {}, 0)
