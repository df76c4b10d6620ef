"""Training through Lightning's Trainer: it learns, and what it leaves behind is right."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from internimage import Classifier, InternImageConfig, LabelMap
from internimage.model.checkpoints.files import CARD_KEY, Card, read_checkpoint
from internimage.structures import Preprocess
from internimage.tasks import ClassificationTask, OptimizerSettings
from internimage.tasks.callbacks import read_rows
from internimage.training import WarmupCosine

Run = Any
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    # torch's own, on the way into Lightning's tree of a batch.
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
]


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True)


def test_it_learns(run: Run) -> None:
    """Sixty pictures by heart: the loss falls to a fraction, and training accuracy is near perfect."""
    run.epochs, run.optimizer = 18, {"lr": 5e-3, "warmup_epochs": 1}
    run.data = {"label_smoothing": 0.0, "batch_size": 20}
    run.fit(limit_val_batches=1)
    losses = [row["train/loss"] for row in run.history.rows]
    assert losses[-1] < 0.3 * losses[0], losses
    images, targets = zip(*(run.datamodule.dataset("train")[n] for n in range(60)), strict=True)
    right = run.task.network.eval()(torch.stack(images)).argmax(-1) == torch.tensor(targets)
    assert right.float().mean() > 0.9


def test_the_history_is_one_row_per_epoch(finished: Run) -> None:
    with (finished.folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    expected = ["epoch", "step", "lr", "train/loss", "val/loss", "val/accuracy", "val/accuracy_top5", "seconds"]
    assert list(rows[0]) == expected
    assert [float(row["epoch"]) for row in rows] == [0, 1, 2]
    assert [float(row["step"]) for row in rows] == [6, 12, 18]
    schedule = WarmupCosine(18, 3, 5e-7, 5e-6)
    assert [float(row["lr"]) for row in rows] == pytest.approx([schedule.rate(step, 2e-3) for step in (6, 12, 18)])
    seconds = [float(row["seconds"]) for row in rows]
    assert seconds == sorted(seconds)
    assert read_rows(finished.folder / "metrics.csv") == finished.history.rows


def test_validation_is_measured_over_all_images(run: Run) -> None:
    """Against the network asked by hand, with a last batch that is smaller than the others."""
    run.epochs, run.data = 1, {"batch_size": 12}
    run.fit()
    images, targets = zip(*(run.datamodule.dataset("val")[n] for n in range(30)), strict=True)
    with torch.inference_mode():
        scores = run.task.network.eval()(torch.stack(images))
    target = torch.tensor(targets)
    row = run.history.rows[-1]
    assert row["val/loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(scores, target)), rel=1e-5)
    assert row["val/accuracy"] == pytest.approx(float((scores.argmax(-1) == target).float().mean()))
    in_top5 = (scores.topk(5).indices == target[:, None]).any(-1).float().mean()
    assert row["val/accuracy_top5"] == pytest.approx(float(in_top5))
    matrix = run.task.confusion_counts()
    assert matrix.sum() == 30
    assert [int(count) for count in matrix.sum(1)] == [targets.count(label) for label in range(10)]
    assert int(matrix.trace()) == int((scores.argmax(-1) == target).sum())


def test_confident_mistakes_are_mistakes_and_the_surest_first(finished: Run) -> None:
    wrong = finished.task.confident_mistakes(6)
    assert 0 < len(wrong) <= 6
    images, targets = zip(*(finished.datamodule.dataset("val")[index] for index in wrong), strict=True)
    with torch.inference_mode():
        confidence, predicted = finished.task.network.eval()(torch.stack(images)).softmax(-1).max(-1)
    assert (predicted != torch.tensor(targets)).all()
    assert confidence.tolist() == pytest.approx(sorted(confidence.tolist(), reverse=True), abs=1e-6)


def test_checkpoints_hold_the_average_and_the_weights(finished: Run) -> None:
    state = load(finished.last)
    average, current = state["state_dict"], state["current_model_state"]
    weight = "network.head.fc.weight"
    assert set(average) == set(current)
    assert not torch.equal(average[weight], current[weight])
    # After training the average has taken the weights' place, in the task and in the exported file.
    torch.testing.assert_close(finished.task.state_dict()[weight], average[weight])


def test_best_and_last_are_what_they_say(finished: Run) -> None:
    accuracies = [row["val/accuracy"] for row in finished.history.rows]
    best, last = load(finished.best), load(finished.last)
    assert best["epoch"] == accuracies.index(max(accuracies))
    assert (last["epoch"], last["global_step"]) == (2, 18)
    assert {path.name for path in finished.best.parent.iterdir()} == {"best.ckpt", "last.ckpt"}


def test_last_is_the_last_even_if_it_is_not_the_best(run: Run) -> None:
    """A value that is highest after the second of four epochs."""

    class Peak(Callback):
        def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            pl_module.log("val/peak", -abs(trainer.current_epoch - 1.0))

    run.epochs, run.monitor, run.callbacks = 4, "val/peak", [Peak()]
    run.fit()
    assert load(run.best)["epoch"] == 1
    assert load(run.last)["epoch"] == 3
    assert len(load(run.last)["callbacks"]["History"]["rows"]) == 4
    exported, best = read_checkpoint(run.folder / "model.safetensors").state, load(run.best)["state_dict"]
    assert torch.equal(exported["head.fc.weight"], best["network.head.fc.weight"])


def test_the_exported_file_predicts_on_its_own(finished: Run) -> None:
    path = finished.folder / "model.safetensors"
    found, best = read_checkpoint(path), load(finished.best)["state_dict"]
    assert found.card is not None
    assert found.card.labels == finished.datamodule.labels
    assert found.card.preprocess == finished.datamodule.preprocess
    for key, tensor in found.state.items():
        torch.testing.assert_close(tensor, best[f"network.{key}"].to(tensor.dtype))
    picture = next((finished.root / "val").rglob("*.png"))
    assert Classifier(path, device="cpu")(picture) == Classifier(finished.best, device="cpu")(picture)


def test_the_checkpoint_says_what_it_is(finished: Run) -> None:
    card = Card.from_dict(load(finished.best)[CARD_KEY])
    assert card.labels == finished.datamodule.labels
    assert card.labels is not None
    assert "Bag" in card.labels.names
    assert card.preprocess == Preprocess(size=14, mean=(0.286,), std=(0.354,))
    assert card.config == finished.task.network.config


def test_layer_decay_and_slow_offsets_reach_the_optimizer(finished: Run) -> None:
    groups = finished.trainer.optimizers[0].param_groups
    peaks = {name: group["initial_lr"] for group in groups for name in group["names"]}
    assert peaks["head.fc.weight"] == pytest.approx(2e-3)
    assert peaks["backbone.stages.3.blocks.0.mlp.fc1.weight"] == pytest.approx(2e-3)
    assert peaks["backbone.stages.0.blocks.0.mlp.fc1.weight"] == pytest.approx(2e-3 * 0.8**3)
    assert peaks["backbone.stem.conv1.weight"] == pytest.approx(2e-3 * 0.8**3)
    assert peaks["backbone.stages.1.blocks.0.dcn.offset.weight"] == pytest.approx(2e-3 * 0.8**2 * 0.1)
    held = [parameter for group in groups for parameter in group["params"]]
    assert len({id(parameter) for parameter in held}) == len(held) == len(list(finished.task.parameters()))
    assert {group["weight_decay"] for group in groups} == {0.0, 0.05}


@pytest.mark.parametrize(("batch_size", "accumulate", "factor"), [(10, 1, 10 / 40), (20, 3, 60 / 40)])
def test_rates_scale_with_the_images_of_a_step(run: Run, batch_size: int, accumulate: int, factor: float) -> None:
    run.epochs, run.data = 1, {"batch_size": batch_size}
    run.optimizer = {"lr": 1e-3, "warmup_lr": 1e-4, "min_lr": 1e-5, "lr_batch_size": 40, "warmup_epochs": 0}
    run.fit(accumulate_grad_batches=accumulate, limit_val_batches=1)
    group = run.trainer.optimizers[0].param_groups[0]
    assert group["initial_lr"] == pytest.approx(1e-3 * factor)
    # At the end of the cosine.
    assert group["lr"] == pytest.approx(1e-5 * factor)
    assert run.trainer.global_step == 60 // batch_size // accumulate


def test_bf16_trains_and_its_file_is_a_whole_one(run: Run) -> None:
    run.epochs = 1
    run.fit(precision="bf16-mixed")
    assert all(torch.isfinite(torch.tensor(row["train/loss"])) for row in run.history.rows)
    state = load(run.last)["state_dict"]
    assert {tensor.dtype for tensor in state.values() if tensor.is_floating_point()} == {torch.float32}
    assert (run.folder / "model.safetensors").is_file()


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped_also_in_mixed_precision(run: Run, precision: Any) -> None:
    """A fused step of the optimizer is no obstacle: a CPU's mixed precision scales nothing."""
    norms: list[tuple[float, float]] = []

    def norm() -> float:
        return float(torch.stack([each.grad.norm() for each in run.task.parameters() if each.grad is not None]).norm())

    run.epochs = 1
    run.build(precision=precision, gradient_clip_val=1e-3)
    clip = run.task.configure_gradient_clipping

    def listen(*arguments: Any, **settings: Any) -> None:
        before = norm()
        clip(*arguments, **settings)
        norms.append((before, norm()))

    run.task.configure_gradient_clipping = listen
    run.trainer.fit(run.task, datamodule=run.datamodule)
    assert len(norms) == 6
    for before, after in norms:
        assert before > 0.01
        assert after == pytest.approx(1e-3, rel=1e-3)


def test_without_validation_the_last_weights_are_exported(run: Run) -> None:
    run.epochs = 1
    run.fit(limit_val_batches=0)
    assert not run.best.exists()
    assert (run.folder / "model.safetensors").is_file()
    assert "val/accuracy" not in run.history.rows[0]


def test_an_epoch_without_validation_shows_no_old_numbers(run: Run) -> None:
    run.epochs = 3
    run.fit(check_val_every_n_epoch=2)
    assert ["val/accuracy" in row for row in run.history.rows] == [False, True, False]
    assert load(run.best)["epoch"] == 1


@pytest.mark.parametrize(
    ("settings", "trainer", "message"),
    [
        ({"warmup_epochs": 2}, {}, "warmup_epochs must be less than the training's 2 epochs, got 2"),
        ({"warmup_epochs": -1}, {}, "warmup_epochs must be less"),
        ({"warmup_epochs": 1}, {"max_steps": 4, "max_epochs": -1}, "less than the training's 0.666667 epochs, got 1"),
        ({}, {"max_epochs": -1}, r"never end; set trainer\.max_epochs"),
        ({"layer_decay": 2.0}, {}, r"layer_decay must be in \(0, 1\]"),
    ],
)
def test_settings_that_make_no_training_are_named(
    run: Run, settings: dict[str, Any], trainer: dict[str, Any], message: str
) -> None:
    run.optimizer = settings
    with pytest.raises(ValueError, match=message):
        run.fit(**trainer)


def test_steps_instead_of_epochs(run: Run) -> None:
    run.optimizer = {"warmup_epochs": 0.5}
    run.fit(max_steps=9, max_epochs=-1)
    assert run.trainer.global_step == 9
    assert run.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(5e-6)


def test_a_task_without_its_data_is_refused() -> None:
    with pytest.raises(ValueError, match="needs labels and preprocess; take them from its ClassificationData"):
        ClassificationTask()
    with pytest.raises(ValueError, match="unknown settings"):
        ClassificationTask(LabelMap(("a", "b")), Preprocess(), model="internimage_femto", model_options={"depth": 3})


def test_channels_and_classes_come_from_the_data() -> None:
    task = ClassificationTask(LabelMap(("a", "b")), Preprocess(28, mean=(0.5,), std=(0.5,)), model="internimage_femto")
    assert (task.network.config.in_chans, task.network.num_classes) == (1, 2)
    assert task(torch.zeros(2, 1, 28, 28)).shape == (2, 2)
    checkpointed = ClassificationTask(
        LabelMap(("a", "b")), Preprocess(), "internimage_femto", model_options={"gradient_checkpointing": True}
    )
    assert checkpointed.card().config == InternImageConfig.from_variant("femto", num_classes=2)


def test_lr_batch_size_needs_to_know_the_batch(run: Run) -> None:
    run.build()
    run.task.optimizer_settings = OptimizerSettings(lr_batch_size=512)
    loader = run.datamodule.train_dataloader()
    trainer = Trainer(max_epochs=1, logger=False, enable_progress_bar=False, accelerator="cpu")
    with pytest.raises(ValueError, match=r"lr_batch_size needs data with a batch_size"):
        trainer.fit(run.task, loader, loader)
