"""A segmenter's training leaves what prediction and resuming need, and measures what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from safetensors.torch import load_file

from internimage import InternImageConfig, Segmenter, create_model, save_checkpoint
from internimage.model.checkpoints.segmenter_files import load_segmenter
from internimage.structures import LabelMap, Measures
from internimage.tasks.segmentation.confusions import confusions

Run = Any
TINY = {"channels": 8, "groups": (1, 2, 4, 8), "depths": (1, 1, 1, 1)}
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory.*exists and is not empty:UserWarning"),
]


def test_the_history_has_the_three_numbers(finished: Run) -> None:
    rows = finished.history.rows
    assert len(rows) == 2
    assert {"val/miou", "val/mean_accuracy", "val/pixel_accuracy", "train/loss", "lr"} <= set(rows[-1])
    assert all(0 <= row[name] <= 1 for row in rows for name in ("val/miou", "val/mean_accuracy", "val/pixel_accuracy"))


def test_the_exported_weights_find_what_the_task_found(finished: Run) -> None:
    """File, card and preprocessing together give the measures of the last evaluation, picture by picture."""
    state = torch.load(finished.best, weights_only=True)["state_dict"]
    assert {f"network.{key}" for key in load_file(finished.weights)} == set(state)
    segmenter = Segmenter(finished.last, device="cpu")
    assert segmenter.labels == finished.datamodule.labels
    assert segmenter.palette == finished.datamodule.palette
    assert segmenter.viewing == finished.datamodule.preprocess
    source, counts = finished.datamodule.dataset("val").source, torch.zeros(11, 11, dtype=torch.int64)
    for index in range(len(source)):
        raw = source.read(index)
        found = confusions(torch.from_numpy(raw.labels), torch.from_numpy(segmenter(raw.image).labels), 11)
        assert Measures.of(found.numpy()).pixel_accuracy == finished.task.accuracies()[index]
        counts += found
    assert counts.equal(finished.task.confusion)
    assert Measures.of(counts.numpy()).miou == pytest.approx(finished.history.rows[-1]["val/miou"], rel=1e-6)


def test_a_moving_average_is_what_is_measured_and_exported(finished: Run) -> None:
    saved = torch.load(finished.last, weights_only=True)
    average = {key.removeprefix("network."): tensor for key, tensor in saved["state_dict"].items()}
    raw = {key.removeprefix("network."): tensor for key, tensor in saved["current_model_state"].items()}
    assert any(not tensor.equal(raw[key]) for key, tensor in average.items())
    loaded = load_segmenter(finished.last).model.state_dict()
    assert all(tensor.equal(average[key]) for key, tensor in loaded.items())
    loaded = load_segmenter(finished.last, ema=False).model.state_dict()
    assert all(tensor.equal(raw[key]) for key, tensor in loaded.items())


def test_the_rate_falls_on_a_line_after_its_warm_up(run: Run) -> None:
    class Watch(Callback):
        def __init__(self) -> None:
            self.rates: list[float] = []

        def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
            self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    watch = Watch()
    run.epochs, run.callbacks = 1, [watch]
    run.optimizer = {"lr": 1e-3, "warmup_steps": 1, "warmup_lr": 1e-4, "min_lr": 0.0}
    run.fit()
    assert watch.rates == pytest.approx([1e-4, 1e-3 * 2 / 3, 1e-3 / 3])


def test_steps_instead_of_epochs(run: Run) -> None:
    """Four steps end in the middle of the second epoch, which is measured all the same, and exported where best."""
    run.fit(max_epochs=-1, max_steps=4, check_val_every_n_epoch=5)
    assert run.trainer.global_step == 4
    assert [row["step"] for row in run.history.rows] == [3, 4]
    assert "val/miou" not in run.history.rows[0]
    assert run.history.rows[1]["val/miou"] > 0
    assert torch.load(run.best, weights_only=True)["global_step"] == 4


def test_the_last_of_few_measured_epochs(run: Run) -> None:
    run.fit(max_epochs=3, check_val_every_n_epoch=2)
    assert ["val/miou" in row for row in run.history.rows] == [False, True, True]


def test_weights_of_16_bits(run: Run) -> None:
    """Pictures follow them; in 16 bits, the class weights do as well, and the loss does not."""
    run.model = {"class_weights": (1.5,) * 11}
    run.fit(max_epochs=-1, max_steps=1, precision="bf16-true")
    assert {each.dtype for each in run.task.network.parameters()} == {torch.bfloat16}
    assert run.history.rows[-1]["val/miou"] > 0
    assert run.trainer.callback_metrics["train/loss"].dtype == torch.float32


def test_it_starts_from_a_classifiers_backbone(run: Run, tmp_path: Path) -> None:
    config = InternImageConfig.from_variant("femto", num_classes=3, **TINY)
    torch.manual_seed(5)
    classifier = create_model(config)
    file = save_checkpoint(classifier, tmp_path / "classifier.safetensors")
    run.model = {"pretrained": str(file)}
    backbone = run.build().task.network.backbone.state_dict()
    assert all(tensor.equal(classifier.backbone.state_dict()[key]) for key, tensor in backbone.items())


def test_it_starts_from_a_segmenter(run: Run, finished: Run, caplog: pytest.LogCaptureFixture) -> None:
    """For the same classes with all of it, for others without the last layer, under another head with the backbone."""
    theirs = load_segmenter(finished.weights).model.state_dict()
    run.model = {"pretrained": str(finished.weights)}
    own = run.build().task.network.state_dict()
    assert all(tensor.equal(theirs[key]) for key, tensor in own.items())
    run.data = {"classes": [f"thing {number}" for number in range(11)]}
    own = run.build().task.network.state_dict()
    last = {"decode_head.classifier.weight", "decode_head.classifier.bias"}
    assert {key for key in own if not own[key].equal(theirs[key])} == last
    # The file's outputs beyond the classes of the data are left out, as of a street file with 150 of them.
    run.data = {"classes": list(finished.datamodule.labels)[:9], "ignored": [9, 10]}
    own = run.build().task.network.state_dict()
    assert own["decode_head.classifier.weight"].equal(theirs["decode_head.classifier.weight"][:9])
    caplog.set_level("INFO", "internimage")
    run.model |= {"head_options": {"channels": 32}}
    own = run.build().task.network.state_dict()
    assert all(own[key].equal(theirs[key]) for key in own if key.startswith("backbone."))
    assert "has another decode_head, which starts anew here" in caplog.text


def test_another_backbone_is_refused(run: Run, finished: Run) -> None:
    run.model = {"pretrained": str(finished.weights), "model_options": {**TINY, "depths": (1, 1, 2, 1)}}
    with pytest.raises(ValueError, match=r"has another backbone: backbone\.stages\.2\.\S+.* differ; match model"):
        run.build()


@pytest.mark.parametrize(
    ("model", "what"),
    [
        ({"head": "fcn"}, "head must be one of upernet, segformer, mask2former, got 'fcn'"),
        ({"head_options": {"chanels": 3}}, r"unknown head_options \['chanels'\]; known are \["),
        ({"model_options": {"depht": 3}}, r"unknown model_options \['depht'\]; known are \["),
        ({"model_options": {"in_chans": 1}}, "a segmenter takes RGB pictures; leave in_chans 1 out"),
        ({"class_weights": (1.0, 2.0)}, r"class_weights must be 11 numbers of at least 0, .* got \[1\.0, 2\.0\]"),
        ({"class_weights": (-1.0,) * 11}, "class_weights must be 11 numbers of at least 0"),
        ({"class_weights": (0.0,) * 11}, "one per class and not all 0"),
        ({"class_weights": (1.0,) * 11, "head": "mask2former", "head_options": {}}, "takes no class_weights; leave"),
    ],
)
def test_options_that_nothing_has(run: Run, model: dict[str, Any], what: str) -> None:
    run.model = model
    with pytest.raises(ValueError, match=what):
        run.build()


def test_pixels_of_a_class_count_as_told(run: Run) -> None:
    """The first loss is the background's and that of all others, each by its weight."""
    losses: list[float] = []
    for weights in (None, (1.0, *(0.0,) * 10), (0.0, *(1.0,) * 10), (2.0, *(3.0,) * 10)):
        run.model = {"class_weights": weights}
        run.fit(max_epochs=-1, max_steps=1, limit_val_batches=0)
        losses.append(float(run.trainer.callback_metrics["train/loss"]))
    both, ground, others, weighted = losses
    assert min(ground, others) > 0
    assert both == pytest.approx(ground + others)
    assert weighted == pytest.approx(2 * ground + 3 * others)


def test_pixels_of_no_class_are_left_out(finished: Run) -> None:
    """What the network says of them changes nothing."""
    task, sample = finished.task, finished.datamodule.dataset("val")[0]
    found = task.segment(sample.image, sample.labels)
    hidden = sample.labels.clone()
    hidden[:20] = 255
    counts = confusions(hidden, found, 11)
    assert int(counts.sum()) == hidden.numel() - 20 * hidden.shape[1]
    assert counts.equal(confusions(sample.labels[20:], found[20:], 11))


def test_predictions_of_the_trainer_are_those_of_the_task(finished: Run) -> None:
    batches = finished.trainer.predict(finished.task, finished.datamodule.val_dataloader())
    assert batches is not None
    found = [each for batch in batches for each in batch]
    samples = [finished.datamodule.dataset("val")[index] for index in range(5)]
    assert len(found) == 5
    finished.task.eval()
    with torch.inference_mode():
        assert all(
            labels_HW.equal(finished.task.segment(sample.image, sample.labels))
            for labels_HW, sample in zip(found, samples, strict=True)
        )


def test_testing_at_several_sizes_and_mirrored(finished: Run, run: Run) -> None:
    """The numbers of a `Segmenter` that looks in the same ways."""
    run.model = {"test_scales": (0.75, 1.5), "test_flip": True, "pretrained": str(finished.weights)}
    run.build()
    run.trainer.test(run.task, datamodule=run.datamodule, verbose=False)
    source = run.datamodule.dataset("test").source
    segmenter = Segmenter(finished.weights, device="cpu", scales=(0.75, 1.5), flip=True)
    counts = torch.zeros(11, 11, dtype=torch.int64)
    for index in range(len(source)):
        raw = source.read(index)
        counts += confusions(torch.from_numpy(raw.labels), torch.from_numpy(segmenter(raw.image).labels), 11)
    assert counts.equal(run.task.confusion)
    assert not counts.equal(finished.task.confusion)


def test_other_classes_are_no_resumption(run: Run, finished: Run) -> None:
    from internimage.tasks.resuming import check_same

    card = finished.task.card()
    changed = type(card)(card.config, LabelMap.numbered(11), None, card.task, card.settings)
    with pytest.raises(ValueError, match="class"):
        check_same(card, changed, "last.ckpt")
