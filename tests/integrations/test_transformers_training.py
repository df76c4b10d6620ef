"""Losses, checkpointing, Trainer and pipeline: what transformers' users do with a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForImageClassification, Trainer, TrainingArguments, pipeline

from internimage import Classifier, InternImageConfig, LabelMap, Preprocess, save_checkpoint
from internimage.data.samples.fashion_mnist import load_sample_arrays
from internimage.integrations.transformers import InternImageForImageClassification, image_processor
from support.compare import relative_rms
from support.published import network_of

SMALL = InternImageConfig(channels=16, depths=(1, 1, 2, 1), groups=(1, 2, 4, 8), num_classes=3)
LABELS = LabelMap(("cat", "dog", "owl"))
IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def small(**settings: Any) -> InternImageForImageClassification:
    return InternImageForImageClassification.from_network(network_of(SMALL), LABELS, **settings)


LOSSES = {
    "single_label_classification": (torch.tensor([0, 1, 2, 0]), F.cross_entropy),
    "multi_label_classification": (torch.eye(3)[[0, 1, 2, 0]], F.binary_cross_entropy_with_logits),
    "regression": (torch.linspace(-1, 1, 12).view(4, 3), F.mse_loss),
}


# Floats mean several labels at once, unless the configuration says regression.
@pytest.mark.parametrize(
    ("kind", "told"), [*((kind, True) for kind in LOSSES), *((kind, False) for kind in list(LOSSES)[:2])]
)
def test_loss_of_each_kind_of_label(kind: str, told: bool) -> None:
    labels, loss = LOSSES[kind]
    out = small(problem_type=kind if told else None)(IMAGES, labels=labels)
    assert torch.equal(out.loss, loss(out.logits, labels))
    out.loss.backward()


def test_outputs() -> None:
    model = small()
    out = model(pixel_values=IMAGES, output_hidden_states=True)
    assert (out.loss, tuple(out.logits.shape), len(out.hidden_states)) == (None, (4, 3), 5)
    assert model(IMAGES).hidden_states is None
    (logits,) = model(IMAGES, return_dict=False)
    assert torch.equal(logits, out.logits)
    model.config.output_hidden_states = True
    assert len(model(IMAGES).hidden_states) == 5


def gradients(model: InternImageForImageClassification) -> dict[str, Tensor]:
    model.zero_grad()
    model(IMAGES, labels=torch.tensor([0, 1, 2, 0])).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


# transformers 5.24 renames it; before, there was no other name.
@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_(en|dis)able. is deprecated:FutureWarning")
def test_gradient_checkpointing_changes_memory_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = small().train(), []
    expected = gradients(model)
    model.gradient_checkpointing_enable()
    assert all(stage.gradient_checkpointing for stage in model.backbone.stages)
    block = model.backbone.stages[2].blocks[1]
    forward = block.forward
    monkeypatch.setattr(block, "forward", lambda x: calls.append(1) or forward(x))
    recomputed = gradients(model)
    assert len(calls) == 2, "once forward, once for the backward pass"
    # A batch normalisation has seen the batch twice; its gradients do not depend on what it counted.
    assert all(torch.allclose(recomputed[name], grad, rtol=1e-4, atol=1e-6) for name, grad in expected.items())
    model.gradient_checkpointing_disable()
    gradients(model)
    assert len(calls) == 3


class Few(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Four images and their classes."""

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"pixel_values": IMAGES[index], "labels": torch.tensor(index % 3)}


# As above: the argument's new name is unknown to older versions.
@pytest.mark.filterwarnings("ignore:.gradient_checkpointing. is deprecated:FutureWarning")
def test_trainer_trains_saves_and_resumes(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    common: dict[str, Any] = {
        "output_dir": str(tmp_path), "per_device_train_batch_size": 2, "save_steps": 2, "report_to": "none",
        "learning_rate": 1e-3, "gradient_checkpointing": True, "use_cpu": True, "disable_tqdm": True,
        "dataloader_pin_memory": False, "label_names": ["labels"],
    }  # fmt: skip
    model = small().train()
    before = model.head.fc.weight.detach().clone()
    trainer = Trainer(model, TrainingArguments(**common, max_steps=2), train_dataset=Few(), eval_dataset=Few())
    trainer.train()
    assert (model.head.fc.weight != before).any()
    assert {"eval_loss"} <= set(trainer.evaluate())
    saved, info = AutoModelForImageClassification.from_pretrained(tmp_path / "checkpoint-2", output_loading_info=True)
    assert not info["missing_keys"] | info["unexpected_keys"]
    assert saved.config.id2label == {0: "cat", 1: "dog", 2: "owl"}
    assert all(
        torch.equal(*pair) for pair in zip(saved.state_dict().values(), model.state_dict().values(), strict=True)
    )
    # Equal but for rounding: a file's tensors lie elsewhere in memory.
    assert relative_rms(saved(IMAGES).logits, model.eval()(IMAGES).logits) < 1e-6
    # Resuming takes weights by name, without the renaming that loading does.
    resumed = Trainer(small().train(), TrainingArguments(**common, max_steps=2), train_dataset=Few())
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert relative_rms(resumed.model.eval()(IMAGES).logits, model(IMAGES).logits) < 1e-6


def test_pipeline_says_what_our_classifier_says(tmp_path: Path) -> None:
    network, preprocess = network_of(SMALL), Preprocess(size=32)
    InternImageForImageClassification.from_network(network, LABELS).save_pretrained(tmp_path / "hub")
    image_processor(preprocess).save_pretrained(tmp_path / "hub")
    save_checkpoint(network, tmp_path / "own.safetensors", labels=LABELS, preprocess=preprocess)
    image = Image.fromarray(load_sample_arrays("test")[0][0]).convert("RGB")
    expected = Classifier(tmp_path / "own.safetensors")(image)
    assert Classifier(tmp_path / "hub")(image) == expected
    classify = pipeline("image-classification", model=str(tmp_path / "hub"), device="cpu")
    said = classify(image, top_k=3)
    assert [answer["label"] for answer in said] == [name for name, _ in expected.top(3)]
    # torchvision rounds a resized pixel to another neighbour now and then.
    scores = [answer["score"] for answer in said]
    assert scores == pytest.approx([score for _, score in expected.top(3)], abs=1e-3)
