"""Mask2Former: scores, masked attention and losses by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")
pytest.importorskip("scipy", reason="Mask2Former matches queries and masks with scipy")

from internimage import InternImageConfig
from internimage.model.segmentation import SegmenterConfig
from internimage.model.segmentation.mask2former import Mask2FormerHead, _settings
from internimage.model.segmentation.mask_losses import Answers, mask_losses

BACKBONE = InternImageConfig.stacked(8, 8, 1, 1, num_classes=0)
CONFIG = SegmenterConfig(
    BACKBONE,
    3,
    "mask2former",
    channels=32,
    queries=4,
    heads=2,
    encoder_layers=1,
    decoder_layers=4,
    encoder_feedforward=16,
    decoder_feedforward=16,
)


@pytest.fixture(scope="module")
def head() -> Mask2FormerHead:
    torch.manual_seed(3)
    return Mask2FormerHead(CONFIG).eval()


def maps() -> list[Tensor]:
    """Of a picture of 64 x 96 pixels."""
    sizes = zip(BACKBONE.stage_channels, BACKBONE.stage_strides, strict=True)
    return [torch.randn(1, channels, 64 // stride, 96 // stride) for channels, stride in sizes]


@pytest.mark.parametrize("mixed", [False, True])
@torch.inference_mode()
def test_scores_are_class_times_mask_summed_over_queries(head: Mask2FormerHead, mixed: bool) -> None:
    """In 32 bits, also where the answers have 16."""
    pictures = maps()
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        scores, answers = head(pictures), head.answers(pictures)
    assert answers.masks[-1].dtype == (torch.bfloat16 if mixed else torch.float32)
    classes, masks = answers.classes[-1][0].double(), answers.masks[-1][0].double()
    wanted = torch.zeros(3, 16, 24, dtype=torch.float64)
    for query in range(4):
        exponents = [math.exp(float(each)) for each in classes[query]]
        for label in range(3):
            wanted[label] += exponents[label] / sum(exponents) / (1 + (-masks[query]).exp())
    torch.testing.assert_close(scores[0].double(), wanted, atol=1e-6, rtol=1e-5)


@torch.inference_mode()
def test_pixels_are_decoded_in_32_bits(head: Mask2FormerHead) -> None:
    """Under autocast what the decoder of the queries gets is what it gets without, to the last bit."""
    given: list[Tensor] = []

    def keep(_: object, __: object, pixels: dict[str, Any]) -> None:
        given.append(torch.cat([each.flatten() for each in (*pixels["multi_scale_features"], pixels["mask_features"])]))

    pictures, handle = maps(), head.transformer_module.register_forward_pre_hook(keep, with_kwargs=True)
    head(pictures)
    with torch.autocast("cpu", torch.bfloat16):
        head(pictures)
    handle.remove()
    assert torch.equal(*given)


def hidden(head: Mask2FormerHead, features: list[Tensor], mask_features: Tensor) -> tuple[Tensor, ...]:
    found = head.transformer_module(multi_scale_features=features, mask_features=mask_features)
    return found.intermediate_hidden_states


@torch.inference_mode()
def test_a_query_blocked_everywhere_is_blocked_nowhere() -> None:
    """Mask logits below 0 block; here all of a query's are, or none, or those of the left half."""
    head = Mask2FormerHead(CONFIG).eval()
    last = head.transformer_module.decoder.mask_predictor.mask_embedder.layers[-1].layers[0]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.constant_(last.bias, 1.0)
    features = [torch.randn(1, 32, 64 // stride, 96 // stride) for stride in (32, 16, 8)]
    open_everywhere = torch.ones(1, 32, 16, 24)
    half = open_everywhere.clone()
    half[..., :12] = -1
    seen = hidden(head, features, open_everywhere)
    blind, half_blind = hidden(head, features, -open_everywhere), hidden(head, features, half)
    for layer in range(5):
        assert seen[layer].isfinite().all()
        assert torch.equal(blind[layer], seen[layer])
        # Before the first layer there is nothing to look at.
        assert torch.equal(half_blind[layer], seen[layer]) == (layer == 0)
    # What is blocked is not seen: it may be anything.
    for each in features:
        each[..., : each.shape[-1] // 2 - 1] += 9
    torch.testing.assert_close(hidden(head, features, half)[-1], half_blind[-1])
    assert not torch.allclose(hidden(head, features, open_everywhere)[-1], seen[-1], atol=0.1)


LABELS = torch.full((1, 64, 64), 2)
LABELS[..., :32] = 0
LABELS[:, 60:] = 255
# Queries 2 and 0 have found classes 0 and 2; query 1 says nothing, query 3 is wrong about there being nothing.
CLASSES = torch.tensor([[[0.0, 0, 4, 0], [0, 0, 0, 4], [4, 0, 0, 0], [0, 4, 0, 0]]])


def losses(answers: Answers, labels: Tensor = LABELS) -> dict[str, Tensor]:
    return mask_losses(_settings(CONFIG), answers, labels)


def right_masks() -> Tensor:
    """At a quarter of the size, sure of both classes."""
    masks = torch.full((1, 4, 16, 16), -30.0)
    masks[0, 2, :15, :8], masks[0, 0, :15, 8:] = 30, 30
    return masks


def class_loss(logits_QC: Tensor, labels: list[int]) -> float:
    """Cross entropy weighted by 1 and, of no object (3), 0.1."""
    weights = [0.1 if label == 3 else 1.0 for label in labels]
    losses = [-float(row.log_softmax(0)[label]) for row, label in zip(logits_QC, labels, strict=True)]
    return 2 * sum(weight * loss for weight, loss in zip(weights, losses, strict=True)) / sum(weights)


def test_losses_by_hand() -> None:
    found = losses(Answers([CLASSES] * 3, [right_masks()] * 3))
    assert found.keys() == {kind + of for kind in ("class", "mask", "dice") for of in ("", "_aux")}
    wanted = class_loss(CLASSES[0], [2, 3, 0, 3])
    assert float(found["class"]) == pytest.approx(wanted)
    assert float(found["class_aux"]) == pytest.approx(2 * wanted)
    # Right but where masks end, which a quarter of the size tells coarsely, and training looks closely.
    assert 0 < float(found["dice"]) < 0.2
    assert 0 < float(found["mask"]) < 5


def test_losses_of_doubt() -> None:
    """A logit of 0 costs log 2 wherever it is, and dice knows how large the masks are: 30 / 64 of the picture."""
    torch.manual_seed(1)
    answers = Answers([CLASSES], [torch.zeros(1, 4, 16, 16)])
    found = losses(answers)
    assert found.keys() == {"class", "mask", "dice"}
    assert float(found["mask"]) == pytest.approx(5 * math.log(2))
    share = 30 / 64
    assert float(found["dice"]) == pytest.approx(5 * (1 - 2 * 0.5 * share / (0.5 + share)), rel=0.02)


def test_exchanged_masks_cost() -> None:
    """Classes and masks of two queries don't belong together. Masks weigh more, so they are matched."""
    answers = Answers([CLASSES], [right_masks()[:, [2, 1, 0, 3]]])
    found = losses(answers)
    assert float(found["class"]) == pytest.approx(class_loss(CLASSES[0], [0, 3, 2, 3]))
    assert float(found["dice"]) < 0.2


def test_an_image_without_classes() -> None:
    """Next to one with two: it teaches that there is nothing, and masks are divided by the two there are."""
    labels = torch.cat((LABELS, torch.full_like(LABELS, 255)))
    answers = Answers([CLASSES.repeat(2, 1, 1)], [torch.zeros(2, 4, 16, 16)])
    found = losses(answers, labels)
    assert float(found["class"]) == pytest.approx(
        class_loss(torch.cat((CLASSES[0], CLASSES[0])), [2, 3, 0, 3] + [3] * 4)
    )
    assert float(found["mask"]) == pytest.approx(5 * math.log(2))


@pytest.mark.parametrize("better", [1, 2])
def test_near_masks_are_told_apart_under_autocast(better: int) -> None:
    """One of two queries is better by very little: it is the one that learns."""
    masks = torch.full((1, 4, 16, 16), -9.0)
    masks[:, 1:3] = 2.0
    masks[:, better] += 1e-4
    answers = Answers([torch.zeros(1, 4, 4)], [masks.requires_grad_()])
    with torch.autocast("cpu", torch.bfloat16):
        losses(answers, torch.zeros_like(LABELS))["mask"].backward()
    assert masks.grad is not None
    assert [query for query, each in enumerate(masks.grad[0]) if each.any()] == [better]


def test_masks_are_counted_over_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two masks here and four in another process: losses are divided by three in both."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda count: count.add_(4))
    answers = Answers([CLASSES] * 2, [torch.zeros(1, 4, 16, 16)] * 2)
    found = losses(answers)
    assert float(found["mask"]) == pytest.approx(5 * math.log(2) * 2 / 3)
    assert float(found["mask_aux"]) == pytest.approx(5 * math.log(2) * 2 / 3)


@pytest.mark.usefixtures("poisoned_memory")
def test_starts_as_released() -> None:
    """Each of two heads looks its own way, one point farther than the other; scales fit the widths."""
    head = Mask2FormerHead(CONFIG)
    assert all(each.isfinite().all() for each in head.state_dict().values())
    attention = head.pixel_decoder.encoder.layers[0].self_attn
    offsets = attention.sampling_offsets.bias.unflatten(0, (2, 3, 4, 2))
    for level in range(3):
        torch.testing.assert_close(offsets[0, level], torch.tensor([[1.0, 0], [2, 0], [3, 0], [4, 0]]))
        torch.testing.assert_close(offsets[1, level], torch.tensor([[-1.0, 0], [-2, 0], [-3, 0], [-4, 0]]))
    assert not attention.attention_weights.weight.any()
    layer = head.transformer_module.decoder.layers[0]
    for weight, rows in (
        (layer.self_attn.q_proj.weight, 96),
        (layer.cross_attn.in_proj_weight, 96),
        (layer.fc1.weight, 16),
    ):
        assert float(weight.detach().std()) == pytest.approx(math.sqrt(2 / (32 + rows)), rel=0.1)
    assert float(head.pixel_decoder.level_embed.detach().std()) == pytest.approx(1, rel=0.3)
