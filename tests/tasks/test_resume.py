"""Stopped anywhere and resumed, a training ends where an uninterrupted one does."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from internimage import InternImageConfig, LabelMap, Preprocess
from internimage.data.augment import Augmentation
from internimage.model import Card
from internimage.tasks.callbacks import read_rows
from internimage.tasks.checkpoints import MovingAverage
from internimage.tasks.resuming import check_same

Run = Any
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning"),
    # The stopping callback is not there when the training is resumed.
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint:UserWarning"),
]
HOOKS = (
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_before_optimizer_step",
    "on_train_batch_end",
    "on_validation_start",
    "on_validation_batch_start",
    "on_validation_batch_end",
    "on_validation_epoch_end",
    "on_validation_end",
    "on_train_epoch_end",
)


VARIED: dict[str, Any] = {
    "data": {"augmentation": Augmentation()},
    "options": {"drop_path_rate": 0.3, "drop_rate": 0.1},
}


class Stop(Callback):
    """Raise at the nth call of a hook, as Ctrl-C would."""

    def __init__(self, hook: str, nth: int, error: BaseException | None = None) -> None:
        self.left, self.error = nth, error or KeyboardInterrupt()
        setattr(self, hook, self.strike)

    def strike(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        self.left -= not trainer.sanity_checking
        if self.left == 0:
            raise self.error


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Lightning switches Ctrl-C off when it has seen it once."""
    yield
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory, finished: Run) -> Run:
    """Two epochs of six steps and three validation batches, with a moving average, never stopped."""
    return type(finished)(tmp_path_factory.mktemp("whole") / "run", images, ema=0.5, **VARIED).fit()


@pytest.fixture
def run(run: Run) -> Run:
    """Pictures in another order every epoch, varied and mixed, and paths dropped at random."""
    run.data, run.options = VARIED["data"], VARIED["options"]
    return run


def stopped(run: Run, hook: str, nth: int) -> Run:
    run.ema, run.callbacks = 0.5, [Stop(hook, nth)]
    with pytest.raises(SystemExit):
        run.fit()
    run.callbacks = []
    return run


def without_time(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def weights(run: Run) -> dict[str, torch.Tensor]:
    return {name: value for name, value in run.task.state_dict().items() if name.startswith("network.")}


@pytest.mark.parametrize(
    ("hook", "nth"),
    [
        ("on_train_epoch_start", 2),
        ("on_train_batch_end", 6),
        ("on_validation_start", 1),
        ("on_validation_batch_start", 2),
        ("on_validation_batch_end", 6),
        ("on_validation_epoch_end", 1),
        ("on_validation_end", 2),
        ("on_train_epoch_end", 1),
    ],
)
def test_stopped_between_steps_nothing_changes(run: Run, whole: Run, hook: str, nth: int) -> None:
    """Same numbers in every row, same weights, same average: also where validation was cut in its middle."""
    resumed = stopped(run, hook, nth).fit(resume=True)
    assert resumed.trainer.global_step == 12
    assert without_time(resumed.history.rows) == without_time(whole.history.rows)
    assert without_time(read_rows(run.folder / "metrics.csv")) == without_time(whole.history.rows)
    for name, tensor in weights(whole).items():
        assert torch.equal(weights(resumed)[name], tensor), name
    assert torch.load(run.best, weights_only=True)["epoch"] == torch.load(whole.best, weights_only=True)["epoch"]


def test_stopped_again_and_again_nothing_changes(run: Run, whole: Run) -> None:
    stopped(run, "on_validation_batch_end", 2)
    for hook, nth in (("on_validation_batch_start", 1), ("on_train_epoch_end", 1), ("on_train_batch_end", 6)):
        run.callbacks = [Stop(hook, nth)]
        with pytest.raises(SystemExit):
            run.fit(resume=True)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run.callbacks = []
    resumed = run.fit(resume=True)
    assert resumed.trainer.global_step == 12
    assert without_time(resumed.history.rows) == without_time(whole.history.rows)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("hook", ["on_train_batch_start", "on_before_optimizer_step", "on_train_batch_end"])
def test_stopped_in_the_middle_of_an_epoch_nothing_changes(run: Run, whole: Run, hook: str, workers: int) -> None:
    """No picture comes twice or not at all, and each is varied and mixed as it would have been."""
    stopped(run, hook, 9)
    run.data = {**run.data, "num_workers": workers}
    resumed = run.fit(resume=True)
    assert resumed.trainer.global_step == 12
    assert without_time(resumed.history.rows) == without_time(whole.history.rows)
    for name, tensor in weights(whole).items():
        assert torch.equal(weights(resumed)[name], tensor), name


@pytest.mark.parametrize(("hook", "nth"), [("on_train_batch_start", 10), ("on_train_batch_end", 9)])
def test_stopped_between_the_batches_of_a_step_nothing_changes(run: Run, hook: str, nth: int, tmp_path: Path) -> None:
    """Gradients are not saved: the step begins anew, with the same pictures."""
    whole = replace(run, folder=tmp_path / "calm", ema=0.5).fit(accumulate_grad_batches=2)
    run.ema, run.callbacks = 0.5, [Stop(hook, nth)]
    with pytest.raises(SystemExit):
        run.fit(accumulate_grad_batches=2)
    assert torch.load(run.last, weights_only=True)["global_step"] == 4
    run.callbacks = []
    resumed = run.fit(resume=True, accumulate_grad_batches=2)
    assert resumed.trainer.global_step == 6
    for name, tensor in weights(whole).items():
        assert torch.equal(weights(resumed)[name], tensor), name


def test_all_hooks_are_real() -> None:
    """A misspelt hook would never strike, and its test would test nothing."""
    assert all(callable(getattr(Callback, hook)) for hook in HOOKS)


def test_stopped_before_the_first_step_leaves_nothing(run: Run) -> None:
    stopped(run, "on_train_batch_start", 1)
    assert not run.last.exists()


def test_an_error_saves_as_well(run: Run) -> None:
    run.callbacks = [Stop("on_train_batch_end", 8, ValueError("an image is damaged"))]
    with pytest.raises(ValueError, match="an image is damaged"):
        run.fit()
    assert torch.load(run.last, weights_only=True)["global_step"] == 8


def test_an_error_after_training_does_not_replace_the_last_state(run: Run) -> None:
    """By then the moving average has taken the weights' place: resuming from that would be another training."""
    run.ema, run.callbacks = 0.5, [Stop("on_fit_end", 1, OSError("disk full"))]
    with pytest.raises(OSError, match="disk full"):
        run.fit()
    state = torch.load(run.last, weights_only=True)
    name = "network.head.fc.weight"
    assert not torch.equal(state["state_dict"][name], state["current_model_state"][name])


def test_the_average_stands_in_only_while_validating(run: Run) -> None:
    """Stopped there, the checkpoint still tells the average and the weights apart."""
    stopped(run, "on_validation_batch_end", 2)
    during = torch.load(run.last, weights_only=True)
    again = replace(run, folder=run.folder.with_name("again"))
    stopped(again, "on_train_batch_end", 6)
    before = torch.load(again.last, weights_only=True)
    name = "network.head.fc.weight"
    assert not torch.equal(before["state_dict"][name], before["current_model_state"][name])
    for key in ("state_dict", "current_model_state"):
        assert torch.equal(during[key][name], before[key][name]), key


def test_a_longer_training_goes_on_in_another_folder(run: Run, whole: Run) -> None:
    """The best value so far is remembered although the folder moved."""
    shutil.copytree(whole.folder, run.folder)
    run.epochs, run.ema = 3, 0.5
    run.optimizer = {"lr": 0.0, "warmup_lr": 0.0, "min_lr": 0.0}
    resumed = run.fit(resume=True)
    assert [row["epoch"] for row in resumed.history.rows] == [0, 1, 2]
    assert without_time(resumed.history.rows)[:2] == without_time(whole.history.rows)
    assert resumed.history.rows[2]["seconds"] >= whole.history.rows[1]["seconds"]
    keeper = resumed.trainer.checkpoint_callbacks[0]
    assert Path(keeper.best_model_path) == run.best.resolve()
    best = max(row["val/accuracy"] for row in resumed.history.rows)
    assert float(keeper.best_model_score) == pytest.approx(best)
    assert torch.load(run.last, weights_only=True)["epoch"] == 2


def test_a_finished_training_is_left_as_it_is(run: Run, whole: Run) -> None:
    shutil.copytree(whole.folder, run.folder)
    run.ema = 0.5
    before = (run.folder / "metrics.csv").read_bytes()
    resumed = run.fit(resume=True)
    assert resumed.trainer.global_step == 12
    assert (run.folder / "metrics.csv").read_bytes() == before


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5])
def test_a_moving_average_needs_a_decay(decay: float) -> None:
    with pytest.raises(ValueError, match=r"ema must be a decay in \[0, 1\)"):
        MovingAverage(decay)


class TestAnotherState:
    """Weights that mean something else are refused in words before any tensor is copied."""

    labels = LabelMap(("cat", "dog"))
    config = InternImageConfig.from_variant("femto", num_classes=2)

    def refuse(self, **changes: Any) -> str:
        theirs, mine = Card(self.config, self.labels, Preprocess()), Card(self.config, self.labels, Preprocess())
        with pytest.raises(ValueError, match=r"^x\.ckpt ") as error:
            check_same(theirs, replace(mine, **changes), "x.ckpt")
        assert "\n" not in str(error.value)
        return str(error.value)

    def test_other_classes(self) -> None:
        message = self.refuse(labels=LabelMap(tuple("abcdefg")), config=replace(self.config, num_classes=7))
        assert "was trained for 2 classes (cat, dog), but the data has 7 classes (a, b, c, d, e, ...)" in message

    def test_the_same_number_of_other_classes(self) -> None:
        assert "(cat, dog), but the data has 2 classes (dog, cat)" in self.refuse(labels=LabelMap(("dog", "cat")))

    def test_another_variant(self) -> None:
        message = self.refuse(config=InternImageConfig.from_variant("pico", num_classes=2))
        assert "holds InternImage-femto" in message
        assert "the run's settings say InternImage-pico" in message

    def test_other_settings(self) -> None:
        message = self.refuse(config=replace(self.config, stem_strides=(1, 1), in_chans=1))
        assert "in_chans=3, not 1; stem_strides=(2, 2), not (1, 1)" in message

    def test_what_only_training_needs_may_change(self) -> None:
        mine = replace(self.config, drop_path_rate=0.3, gradient_checkpointing=True)
        check_same(Card(self.config, self.labels), Card(mine, self.labels, Preprocess(64)), "x.ckpt")


def test_resuming_with_other_classes_says_so(run: Run, whole: Run, tmp_path: Path) -> None:
    shutil.copytree(whole.folder, run.folder)
    shutil.copytree(run.root, tmp_path / "fewer")
    shutil.rmtree(tmp_path / "fewer" / "train" / "Bag")
    shutil.rmtree(tmp_path / "fewer" / "val" / "Bag")
    run.root, run.epochs, run.ema = tmp_path / "fewer", 3, 0.5
    with pytest.raises(ValueError, match=r"last\.ckpt was trained for 10 classes .*, but the data has 9 classes"):
        run.fit(resume=True)
