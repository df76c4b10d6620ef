"""Stopped and resumed, a detector's training ends where an uninterrupted one does; another detector is refused."""

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

from internimage.structures import LabelMap
from internimage.tasks.callbacks import read_rows
from internimage.tasks.resuming import check_same

Run = Any
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*before the epoch ended and your dataloader is not resumable:UserWarning"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning"),
    # The stopping callback is not there when the training is resumed.
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint:UserWarning"),
]


class Stop(Callback):
    """Ctrl-C at the nth call of a hook."""

    def __init__(self, hook: str, nth: int) -> None:
        self.left = nth
        setattr(self, hook, self.strike)

    def strike(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        self.left -= not trainer.sanity_checking
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Lightning switches Ctrl-C off when it has seen it once."""
    yield
    signal.signal(signal.SIGINT, signal.default_int_handler)


def without_time(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def stopped(run: Run, finished: Run, hook: str, nth: int) -> Run:
    run.ema, run.optimizer, run.callbacks = finished.ema, finished.optimizer, [Stop(hook, nth)]
    with pytest.raises(SystemExit):
        run.fit()
    run.callbacks = []
    return run


@pytest.mark.parametrize(("hook", "nth"), [("on_validation_batch_end", 2), ("on_train_epoch_end", 1)])
def test_stopped_and_resumed_nothing_changes(run: Run, finished: Run, hook: str, nth: int) -> None:
    """Also where the results of the first validation pictures were lost with the process."""
    resumed = stopped(run, finished, hook, nth).fit(resume=True)
    assert without_time(resumed.history.rows) == without_time(finished.history.rows)
    assert without_time(read_rows(run.folder / "metrics.csv")) == without_time(finished.history.rows)
    theirs = finished.task.state_dict()
    assert all(torch.equal(each, theirs[name]) for name, each in resumed.task.state_dict().items())
    assert resumed.task.results() == finished.task.results()


def test_stopped_in_the_middle_of_an_epoch_no_step_is_lost_or_repeated(run: Run, finished: Run) -> None:
    resumed = stopped(run, finished, "on_train_batch_end", 5).fit(resume=True)
    assert resumed.trainer.global_step == 6
    assert without_time(resumed.history.rows)[0] == without_time(finished.history.rows)[0]
    assert [row["step"] for row in resumed.history.rows] == [3, 6]
    assert resumed.task.evaluated() == list(range(5))


def test_resuming_with_other_classes_says_so(run: Run, finished: Run, tmp_path: Path) -> None:
    shutil.copytree(finished.folder, run.folder)
    run.root = Path(shutil.copytree(run.root, tmp_path / "renamed"))
    for path in (run.root / "annotations").iterdir():
        path.write_text(path.read_text(encoding="utf-8").replace('"Bag"', '"Sack"'), encoding="utf-8")
    run.epochs, run.ema = 3, finished.ema
    with pytest.raises(ValueError, match=r"last\.ckpt was trained for 10 classes \(T-shirt/top, .* the data has 10 cl"):
        run.fit(resume=True)


def test_resuming_with_other_pictures_goes_on(run: Run, finished: Run) -> None:
    """Their size, and what is shown of what was found, are no part of the weights."""
    shutil.copytree(finished.folder, run.folder)
    run.epochs, run.ema, run.data = 3, finished.ema, {"frame": (96, 128)}
    run.build()
    run.model = {"detector_options": {**settings_of(run), "detections": 7, "samples": 8, "score_threshold": 0.01}}
    resumed = run.fit(resume=True)
    assert len(resumed.history.rows) == 3
    assert max(len(resumed.task.results_of(index)) for index in range(5)) == 7


def settings_of(run: Run) -> dict[str, Any]:
    names = ("fpn_channels", "head_channels", "finest_scale", "proposals_per_level", "proposals")
    return {name: getattr(run.task.network.config, name) for name in names}


class TestAnotherDetector:
    """Told by what the two say of themselves."""

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            (
                {"stages": 3, "head_convs": 4, "head_layers": 1},
                "head_convs=0, not 4; head_layers=2, not 1; stages=1, not",
            ),
            ({"finest_scale": 56}, "finest_scale=14, not 56"),
            ({"fpn_channels": 32}, "fpn_channels=16, not 32"),
            ({"masks": False}, "masks=True, not False"),
            ({"kind": "detr", "family": "d_fine"}, "kind='rcnn', not 'detr'"),
        ],
    )
    def test_other_settings(self, finished: Run, settings: dict[str, Any], words: str) -> None:
        theirs = finished.task.card()
        mine = replace(theirs, settings={**theirs.settings, **settings})
        with pytest.raises(
            ValueError, match=r"^x\.ckpt was trained with .*; set model\.init_args as they were$"
        ) as error:
            check_same(theirs, mine, "x.ckpt")
        assert words in str(error.value)

    def test_another_backbone(self, finished: Run) -> None:
        theirs = finished.task.card()
        with pytest.raises(
            ValueError, match=r"x\.ckpt was trained with offset_scale=1\.0, not 2\.0; set model\.init_args\.model_o"
        ):
            check_same(theirs, replace(theirs, config=replace(theirs.config, offset_scale=2.0)), "x.ckpt")
        with pytest.raises(ValueError, match=r"x\.ckpt holds .* but the run's settings say"):
            check_same(theirs, replace(theirs, config=replace(theirs.config, channels=16)), "x.ckpt")

    def test_another_task(self, finished: Run) -> None:
        theirs = finished.task.card()
        with pytest.raises(ValueError, match=r"x\.ckpt holds a network for detection, but the run is one of class"):
            check_same(theirs, replace(theirs, task="classification", settings={}), "x.ckpt")
        with pytest.raises(
            ValueError, match=r"x\.ckpt was trained for 10 classes .*, but the data has 2 classes \(a, b\)"
        ):
            check_same(theirs, replace(theirs, labels=LabelMap(("a", "b"))), "x.ckpt")

    def test_what_may_change(self, finished: Run) -> None:
        theirs = finished.task.card()
        free = {"proposals": 7, "samples": 9, "nms_threshold": 0.9, "mask_threshold": 0.1, "framing": {}}
        config = replace(theirs.config, drop_path_rate=0.3, gradient_checkpointing=True)
        check_same(theirs, replace(theirs, config=config, settings={**theirs.settings, **free}), "x.ckpt")
