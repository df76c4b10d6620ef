"""What a run leaves for people: the page, the pictures, and commands on it that work."""

from __future__ import annotations

import re
import shlex
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from internimage.tasks.callbacks import History, Report, read_rows, write_rows
from internimage.tasks.classification.report import ClassificationReport

Run = Any
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint:UserWarning"),
]
PICTURES = ("curves.png", "predictions.png", "mistakes.png", "confusion_matrix.png")


@pytest.fixture(scope="module")
def reported(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page that training wrote, in a folder whose name has a space."""
    folder = tmp_path_factory.mktemp("reported") / "my run"
    folder.mkdir()
    (folder / "config.yaml").write_text("model: <tiny> & small\n", encoding="utf-8")
    # The state that a run is in when its training ends.
    finished.trainer.state.fn = "fit"
    ClassificationReport(folder)(finished.trainer, finished.task, finished.history)
    return folder


def test_the_pictures_are_there_and_not_empty(reported: Path) -> None:
    for name in PICTURES:
        with Image.open(reported / name) as picture:
            picture.load()
            assert min(picture.size) > 200, name
            assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 20, name


def test_the_page_tells_the_numbers(reported: Path, finished: Run) -> None:
    page = (reported / "report.html").read_text(encoding="utf-8")
    accuracy = finished.history.rows[-1]["val/accuracy"]
    assert f"{100 * accuracy:.1f}%" in page
    assert "my run" in page
    assert "Ankle boot" in page
    assert "model: &lt;tiny&gt; &amp; small" in page
    assert page.count("data:image/png;base64,") == len(PICTURES)
    assert not re.search(r'(src|href)="(https?:|/)', page), "the page must need nothing else"


def test_the_page_says_which_epoch_its_numbers_are_of(finished: Run, tmp_path: Path) -> None:
    """The weight file holds the best epoch, the pictures show the last one."""
    best = History(tmp_path / "metrics.csv")
    best.rows = [{**finished.history.rows[0], "val/accuracy": 0.9999}, *finished.history.rows[1:]]
    finished.trainer.state.fn = "fit"
    ClassificationReport(tmp_path)(finished.trainer, finished.task, best)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Validation accuracy, best epoch (saved)" in page
    assert "100.0%" in page
    assert "Validation accuracy, last epoch" in page


def test_the_commands_on_the_page_survive_a_space(reported: Path) -> None:
    page = unescape((reported / "report.html").read_text(encoding="utf-8"))
    commands = [shlex.split(line) for line in re.findall(r"internimage (?:predict|test|fit)[^<\n]*", page)]
    assert len(commands) >= 3
    for words in commands:
        flag = "--weights" if words[1] == "predict" else "--run"
        assert words[words.index(flag) + 1] == reported.as_posix()


def test_after_a_test_the_page_keeps_the_curves_and_shows_test_images(run: Run) -> None:
    """A test is another process: all it knows of the training is the CSV file."""
    run.epochs = 1
    run.fit()
    rows = read_rows(run.folder / "metrics.csv")
    run.build(callbacks=None)
    history = History(run.folder / "metrics.csv")
    history.read()
    run.trainer.callbacks.append(Report(ClassificationReport(run.folder), history))
    run.trainer.test(run.task, run.datamodule, ckpt_path=str(run.best), weights_only=True, verbose=False)
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "Test accuracy" in page
    assert "Validation accuracy</" not in page
    assert (run.folder / "curves.png").is_file()
    assert read_rows(run.folder / "metrics.csv") == rows
    seconds = round(rows[-1]["seconds"])
    assert f"{seconds} s" in page, "the time is the training's, not the test's"


def test_a_training_that_has_nothing_left_keeps_its_page(run: Run) -> None:
    calls: list[str] = []

    def note(trainer: Any, task: Any, history: History) -> Path:
        calls.append(trainer.state.fn)
        return run.folder

    run.epochs = 1
    run.callbacks = [Report(note, History(run.folder / "other.csv"))]
    run.fit()
    assert calls == ["fit"]
    run.callbacks = [Report(note, History(run.folder / "other.csv"))]
    with pytest.warns(UserWarning, match="exists and is not empty"):
        run.fit(resume=True)
    assert calls == ["fit"]


def test_a_trial_run_leaves_no_confusions(run: Run) -> None:
    """Lightning validates two batches before training; they are no result."""
    run.epochs = 1
    run.fit(check_val_every_n_epoch=2, num_sanity_val_steps=2)
    assert run.task.confusion_counts().sum() == 0
    assert run.task.confident_mistakes(5) == []


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_training_loss_is_the_mean_over_the_epochs_batches(run: Run, accumulate: int) -> None:
    run.build(accumulate_grad_batches=accumulate)
    losses: list[float] = []
    step = run.task.training_step

    def listen(batch: Any, batch_idx: int) -> torch.Tensor:
        loss = step(batch, batch_idx)
        losses.append(loss.item())
        return loss

    run.task.training_step = listen
    run.trainer.fit(run.task, run.datamodule)
    assert len(losses) == 12
    means = [sum(losses[:6]) / 6, sum(losses[6:]) / 6]
    assert [row["train/loss"] for row in run.history.rows] == pytest.approx(means, rel=1e-6)


def test_rows_survive_the_file(tmp_path: Path) -> None:
    rows = [{"epoch": 0.0, "train/loss": 1.5}, {"epoch": 1.0, "train/loss": 1 / 3, "val/loss": 2e-7}]
    write_rows(tmp_path / "metrics.csv", rows)
    assert read_rows(tmp_path / "metrics.csv") == rows
    assert read_rows(tmp_path / "missing.csv") == []
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_two_classes_have_a_page(run: Run, tmp_path: Path) -> None:
    """Top-5 of two classes, a matrix of two, and a network that may make no mistake."""
    import shutil

    root = tmp_path / "two"
    for split in ("train", "val"):
        for name in ("Bag", "Dress"):
            shutil.copytree(run.root / split / name, root / split / name)
    run.root, run.epochs, run.data = root, 1, {"batch_size": 4}
    run.build()
    run.trainer.callbacks.append(Report(ClassificationReport(run.folder), run.history))
    run.trainer.fit(run.task, run.datamodule)
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "Top-5" not in page
    assert run.task.confusion_counts().shape == (2, 2)


def test_half_precision_networks_are_drawn_too(run: Run) -> None:
    run.epochs = 1
    run.build(precision="bf16-true", limit_train_batches=1)
    run.trainer.callbacks.append(Report(ClassificationReport(run.folder), run.history))
    run.trainer.fit(run.task, run.datamodule)
    assert next(run.task.parameters()).dtype == torch.bfloat16
    assert (run.folder / "predictions.png").is_file()


def test_a_page_without_mistakes_shows_none_of_an_earlier_one(run: Run, finished: Run) -> None:
    run.folder.mkdir()
    finished.trainer.state.fn = "fit"
    report = ClassificationReport(run.folder)
    report(finished.trainer, finished.task, finished.history)
    assert (run.folder / "mistakes.png").is_file()
    mistakes, finished.task.confident_mistakes = finished.task.confident_mistakes, lambda count: []
    try:
        page = report(finished.trainer, finished.task, finished.history).read_text(encoding="utf-8")
    finally:
        finished.task.confident_mistakes = mistakes
    assert not (run.folder / "mistakes.png").exists()
    assert 'href="./mistakes.png"' not in page
    assert (run.folder / "predictions.png").is_file()
