"""DINO as a detector: what it answers, what it learns from, and what makes no difference to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from internimage import InternImageConfig
from internimage.model.detection import Objects
from internimage.model.detection.detr.attention import FastAttention
from internimage.model.detection.dino import DinoConfig, InternImageDino
from internimage.model.detection.dino.positions import lay_out

from .conftest import PLACES, TINY, TRUTHS

Build = Callable[..., InternImageDino]
NOTHING = Objects(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))


def test_boxes_lie_in_their_pictures_best_first(detector: Build, images: Tensor) -> None:
    with torch.no_grad():
        found = detector().eval()(images, PLACES)
    for each, place in zip(found, PLACES, strict=True):
        height, width = place.original_size
        assert len(each.boxes) == 20
        assert (each.boxes >= 0).all()
        assert (each.boxes[:, 2] <= width).all()
        assert (each.boxes[:, 3] <= height).all()
        assert (each.scores.diff() <= 0).all()
        assert each.labels.max() < 3


def test_every_attention_samples_with_our_operator(detector: Build) -> None:
    """Whatever transformers calls its plain one."""
    attentions = [each for each in detector().modules() if hasattr(each, "sampling_offsets")]
    assert len(attentions) == 3
    assert all(isinstance(each.attn, FastAttention) for each in attentions)


def test_thresholds_and_limits(detector: Build, images: Tensor) -> None:
    model = detector(detections=5).eval()
    with torch.no_grad():
        every = model(images, PLACES)[0]
        model.config = replace(model.config, score_threshold=float(every.scores[2]))
        assert model(images, PLACES)[0].scores.tolist() == every.scores[:2].tolist()


def test_answers_that_are_no_numbers_are_not_hidden(detector: Build, images: Tensor) -> None:
    model = detector(score_threshold=0.5).eval()
    with torch.no_grad():
        model.transformer.class_heads[1].bias.fill_(float("nan"))
        assert not model(images, PLACES)[0].scores.isfinite().any()


def test_tokens_of_the_padding_are_not_seen(detector: Build, images: Tensor) -> None:
    model, places = detector().eval(), [replace(PLACES[1], size=(32, 64))] * 2
    with torch.no_grad():
        tokens = model.neck(model.backbone(images)[1:])
        layout = lay_out(tokens, (64, 96), places)
        assert layout.valid is not None
        sizes = [each[0, 0].numel() for each in tokens]
        changed = [
            torch.where(valid.view(2, 1, *each.shape[2:]), each, 9.0)
            for each, valid in zip(tokens, layout.valid.split(sizes, 1), strict=True)
        ]
        one, other = model.transformer(tokens, layout), model.transformer(changed, layout)
    assert 0.2 < layout.valid.float().mean() < 0.5
    assert torch.allclose(one.boxes, other.boxes, atol=1e-6)
    assert torch.allclose(one.logits, other.logits, atol=1e-5)


def test_every_batch_has_the_same_losses_and_teaches_every_weight(detector: Build, images: Tensor) -> None:
    model = detector()
    names: list[set[str]] = []
    for truths in (TRUTHS, [TRUTHS[0], NOTHING], [NOTHING, NOTHING]):
        model.zero_grad()
        losses = model.losses(images, truths, PLACES)
        torch.stack(list(losses.values())).sum().backward()
        names.append(set(losses))
        assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())
    assert names[0] == names[1] == names[2]
    assert names[0] == {f"{what}{of}" for what in ("class", "box", "giou") for of in ("", "_aux", "_dn")}


def test_a_composites_assisting_backbone_learns_from_losses_of_its_own(detector: Build, images: Tensor) -> None:
    model = detector(composite=True)
    torch.manual_seed(2)
    losses = model.losses(images, TRUTHS, PLACES)
    assert {name for name in losses if name.startswith("assisting_")} == {
        f"assisting_{name}" for name in losses if not name.startswith("assisting_")
    }
    torch.stack(list(losses.values())).sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())
    # Half as heavy: with the assisting maps in both places the two sums are two to one.
    with torch.no_grad():
        maps = model.backbone.forward_both(images)[0]
        model.backbone.forward_both = lambda _: (maps, maps)  # type: ignore[method-assign]
        torch.manual_seed(2)
        twice = model.losses(images, TRUTHS, PLACES)
    for name in ("class", "box_aux", "giou_dn"):
        assert float(twice[name]) == pytest.approx(2 * float(twice[f"assisting_{name}"]), rel=1e-5)


def test_a_federated_loss_leaves_classes_out(detector: Build, images: Tensor) -> None:
    """One class is shown and one counts: the other two have no say in the class loss, whatever is said of them."""
    model, truths = detector(federated_classes=1, denoising_queries=0), [TRUTHS[1], NOTHING]
    model.losses(images, truths, PLACES)["class"].backward()
    rows = model.transformer.class_heads[1].weight.grad
    assert rows is not None
    assert rows[1].any()
    assert not rows[[0, 2]].any()


def test_checkpointing_changes_nothing(detector: Build, images: Tensor) -> None:
    found: list[tuple[float, list[Tensor]]] = []
    for enable in (False, True):
        model = detector()
        model.set_grad_checkpointing(enable)
        torch.manual_seed(5)
        total = torch.stack(list(model.losses(images, TRUTHS, PLACES).values())).sum()
        total.backward()
        found.append((float(total.detach()), [weight.grad for weight in model.parameters() if weight.grad is not None]))
    (one, before), (other, after) = found
    assert one == pytest.approx(other, rel=1e-6)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(before, after, strict=True))


def test_look_forward_twice(detector: Build, images: Tensor) -> None:
    """The last layer's boxes also teach the layer before, but not the one before that, nor the proposals."""
    model = detector(decoder_layers=3).train()
    answers = model.answers(model.backbone(images), (64, 96), PLACES)
    answers.boxes[-1].sum().backward()
    heads = [head.layers[-1].bias.grad for head in model.transformer.box_heads]
    assert [grad is not None and bool(grad.any()) for grad in heads] == [False, True, True, False]


def test_in_16_bit_boxes_stay_exact(detector: Build, images: Tensor) -> None:
    model = detector().eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        answers = model.answers(model.backbone(images), (64, 96), PLACES)
    assert answers.boxes.dtype == answers.references.dtype == torch.float32
    with torch.no_grad():
        exact = model.answers(model.backbone(images), (64, 96), PLACES)
    assert (answers.proposed_boxes - exact.proposed_boxes).abs().median() < 0.02


def test_weights_of_16_bit(detector: Build, images: Tensor) -> None:
    """Places keep 32 bits, codes of places do not."""
    model = detector().bfloat16()
    losses = model.losses(images.bfloat16(), TRUTHS, PLACES)
    torch.stack(list(losses.values())).sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())
    answers = model.answers(model.backbone(images.bfloat16()), (64, 96), PLACES)
    assert answers.boxes.dtype == answers.references.dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 40}, "multiple of 2 heads and of 32, got 40"),
        ({"levels": 2}, "levels must be 3 or more, got 2"),
        ({"queries": 0}, "queries must be at least 1, got 0"),
        ({"label_noise": 1.5}, "label_noise in"),
        ({"masks": True}, "finds boxes, no masks"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **settings)


def test_wrong_pictures_are_refused(detector: Build) -> None:
    model = detector()
    with pytest.raises(ValueError, match="multiples of 32 pixels, got 64 x 90"):
        model(torch.zeros(1, 3, 64, 90))
    with pytest.raises(ValueError, match=r"32 x 32 pixels have 22 positions for 30 queries"):
        detector(queries=30)(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match="training mode"):
        model.eval().losses(torch.zeros(1, 3, 64, 96), TRUTHS[:1])


def test_learns_eight_pictures_by_heart() -> None:
    """Two squares in each, of three classes, anywhere; found with the right class and an IoU of 0.9 in the mean."""
    torch.manual_seed(0)
    images, truths = torch.zeros(8, 3, 64, 64), list[Objects]()
    for image in images:
        corner = torch.tensor([[2.0, 2.0], [32.0, 32.0]]) + torch.randint(0, 8, (2, 2))
        boxes, labels = torch.cat((corner, corner + torch.randint(14, 24, (2, 1))), 1), torch.randint(0, 3, (2,))
        for (x1, y1, x2, y2), label in zip(boxes.int().tolist(), labels.tolist(), strict=True):
            image[label, y1:y2, x1:x2] = 2.0
        truths.append(Objects(boxes, labels))
    backbone = InternImageConfig.stacked(16, 8, 1, 1, num_classes=0)
    sizes = {"channels": 64, "hidden_channels": 64, "heads": 4, "encoder_layers": 1, "decoder_layers": 2}
    model = InternImageDino(DinoConfig(backbone, 3, queries=12, denoising_queries=8, **sizes))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=120)
    for _ in range(120):
        optimizer.zero_grad()
        torch.stack(list(model.train().losses(images, truths).values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    overlaps: list[float] = []
    with torch.no_grad():
        for found, truth in zip(model.eval()(images), truths, strict=True):
            best = found.scores > 0.5
            overlap = box_iou(truth.boxes, found.boxes[best]) * (truth.labels[:, None] == found.labels[best])
            assert int(best.sum()) >= 2
            overlaps += overlap.max(1).values.tolist()
    assert sum(overlaps) / len(overlaps) > 0.9
