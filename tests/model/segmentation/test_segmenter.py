"""Segmenters: shapes, losses by hand, gradients, and what they refuse."""

from __future__ import annotations

import math
import sys
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("transformers")
pytest.importorskip("scipy", reason="Mask2Former matches queries and masks with scipy")

from internimage import InternImageConfig
from internimage.model.segmentation import HeadName, InternImageSegmenter, SegmenterConfig
from internimage.model.segmentation.layers import Classifier, Norm
from internimage.model.segmentation.segmenter import _cross_entropy

BACKBONE = InternImageConfig.stacked(8, 8, 1, 1, num_classes=0)
MASK2FORMER: dict[str, Any] = {"queries": 6, "encoder_layers": 1, "decoder_layers": 4, "points": 64}
MASK2FORMER |= {"encoder_feedforward": 32, "decoder_feedforward": 32}
HEADS: tuple[HeadName, ...] = get_args(HeadName)
heads = pytest.mark.parametrize("head", HEADS)


def segmenter(head: HeadName, **settings: Any) -> InternImageSegmenter:
    own: dict[str, Any] = {"upernet": {"auxiliary": True, "auxiliary_channels": 16}, "mask2former": MASK2FORMER}
    values = {"channels": 64 if head == "mask2former" else 16, **own.get(head, {}), **settings}
    return InternImageSegmenter(SegmenterConfig(BACKBONE, 5, head, **values))


def example(count: int = 2, size: tuple[int, int] = (64, 96)) -> tuple[Tensor, Tensor]:
    labels = torch.randint(0, 5, (count, *size))
    labels[:, :7] = 255
    return torch.randn(count, 3, *size), labels


@heads
@pytest.mark.parametrize(("count", "size"), [(2, (64, 96)), (1, (45, 70)), (1, (33, 7))])
def test_any_size_and_number(head: HeadName, count: int, size: tuple[int, int]) -> None:
    network, (image, labels) = segmenter(head), example(count, size)
    losses = network.train().losses(image, labels)
    assert all(loss.isfinite() and loss.dim() == 0 for loss in losses.values())
    with torch.no_grad():
        scores = network.eval()(image)
    assert scores.shape == (count, 5, math.ceil(size[0] / 4), math.ceil(size[1] / 4))
    assert scores.isfinite().all()


@heads
def test_gradients_reach_every_weight(head: HeadName) -> None:
    """One image is enough. Of a softmax's keys the bias alone changes nothing."""
    network, (image, labels) = segmenter(head), example(1)
    # Layers that start at zero pass nothing on.
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.dim() > 1 and not weight.any():
                nn.init.normal_(weight, std=0.1)
            assert weight.isfinite().all(), name
    torch.stack(list(network.train().losses(image, labels).values())).sum().backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
        assert weight.grad.any() or name.endswith("k_proj.bias"), name


def test_what_is_above_is_taught_by_its_own_loss() -> None:
    network, (image, labels) = segmenter("upernet").train(), example()
    losses = network.losses(image, labels)
    assert losses.keys() == {"decode", "auxiliary"}
    losses["auxiliary"].backward()
    assert network.auxiliary_head is not None
    assert all(each.grad is None for each in network.decode_head.parameters())
    assert all(each.grad is not None for each in network.auxiliary_head.parameters())


def test_cross_entropy_by_hand() -> None:
    """Two classes whose logits differ by 2 from the left to the right; the third of four pixels is ignored."""
    logits = torch.tensor([[[[0.0, 0.0]], [[-1.0, 1.0]]]])
    labels = torch.tensor([[[0, 1, 255, 0]]])
    # Bilinear, with pixels as squares: -1, -0.5, 0.5, 1.
    losses = [math.log1p(math.exp(-1.0)), math.log1p(math.exp(0.5)), 0.0, math.log1p(math.exp(1.0))]
    found = _cross_entropy(logits.requires_grad_(), labels)
    assert float(found.detach()) == pytest.approx(sum(losses) / 4)
    # A pixel of the second class counts three times; the mean is still over all pixels.
    losses[1] *= 3
    weighted = _cross_entropy(logits, labels, torch.tensor([1.0, 3.0]))
    assert float(weighted.detach()) == pytest.approx(sum(losses) / 4)
    # In 16 bits they are the same to the logits' rounding, which here is none.
    assert torch.equal(_cross_entropy(logits.bfloat16(), labels), found)


@pytest.mark.parametrize("classes", [None, torch.tensor([0.5, 1.0, 4.0, 0.0, 2.0])], ids=["alike", "weighted"])
def test_weights_of_the_two_losses(classes: Tensor | None) -> None:
    network, (image, labels) = segmenter("upernet", dropout=0.0, auxiliary_weight=0.25).train(), example()
    losses, maps = network.losses(image, labels, classes), network.backbone(image)
    assert network.auxiliary_head is not None
    torch.testing.assert_close(losses["decode"], _cross_entropy(network.decode_head(maps), labels, classes))
    auxiliary = 0.25 * _cross_entropy(network.auxiliary_head(maps), labels, classes)
    torch.testing.assert_close(losses["auxiliary"], auxiliary)


@heads
def test_nothing_but_ignored_pixels(head: HeadName) -> None:
    network, (image, _) = segmenter(head).train(), example()
    losses = network.losses(image, torch.full((2, 64, 96), 255))
    for name, loss in losses.items():
        assert loss.isfinite()
        # Queries still learn that they have found nothing.
        assert float(loss.detach()) == 0 or name.startswith("class")
    torch.stack(list(losses.values())).sum().backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in network.parameters())


@heads
def test_autocast(head: HeadName) -> None:
    network, (image, labels) = segmenter(head, dropout=0.0), example()
    torch.manual_seed(1)
    wanted = network.train().losses(image, labels)
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        found = network.losses(image, labels)
        with torch.inference_mode():
            scores = network.eval()(image)
    with torch.inference_mode():
        torch.testing.assert_close(scores.float(), network(image), atol=0.03, rtol=0.03)
    for name, loss in found.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, wanted[name], atol=0.05, rtol=0.05)


@heads
def test_learns_after_evaluation(head: HeadName) -> None:
    """transformers remembers the positions of a map; those of inference mode would be of no use in training."""
    network, (image, labels) = segmenter(head), example()
    with torch.inference_mode():
        network.eval()(image)
    torch.stack(list(network.train().losses(image, labels).values())).sum().backward()


@torch.no_grad()
def test_dropped_maps() -> None:
    classifier, maps = Classifier(400, 1, 0.25), torch.ones(1, 400, 1, 1)
    nn.init.ones_(classifier.weight)
    assert float(classifier.eval()(maps)) == pytest.approx(400)
    # Those that stay are larger, so that their sum is what it was on average.
    kept = float(classifier.train()(maps)) * 0.75
    assert kept == pytest.approx(round(kept), abs=1e-3)
    assert 250 < kept < 350
    assert len({float(classifier(maps)) for _ in range(9)}) > 1
    assert isinstance(segmenter("upernet", dropout=0.2).decode_head.classifier, Classifier)
    assert segmenter("upernet", dropout=0.2).decode_head.classifier.dropout == 0.2
    assert segmenter("segformer", dropout=0.2).decode_head.classifier.dropout == 0.2


def test_one_position_is_normalised_by_what_was_seen() -> None:
    norm, plain = Norm(2), nn.BatchNorm2d(2)
    maps = torch.tensor([[[[1.0, 3.0]], [[0.0, 8.0]]]])
    torch.testing.assert_close(norm(maps), plain(maps))
    assert norm.running_mean is not None
    torch.testing.assert_close(norm.running_mean, torch.tensor([0.2, 0.4]))
    one, before = maps[..., :1], norm.running_mean.clone()
    torch.testing.assert_close(norm(one), plain.eval()(one))
    assert torch.equal(norm.running_mean, before)


@pytest.mark.parametrize("head", ["upernet", "segformer"])
def test_processes_normalise_together(head: HeadName) -> None:
    """As Lightning's sync_batchnorm makes them."""
    network = segmenter(head)
    names = network.state_dict().keys()
    together = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    assert not any(isinstance(each, nn.BatchNorm2d) for each in together.modules())
    assert together.state_dict().keys() == names


def test_refusals() -> None:
    network, (image, labels) = segmenter("segformer"), example()
    with pytest.raises(ValueError, match=r"need the segmenter in training mode; call segmenter\.train\(\) first"):
        network.eval().losses(image, labels)
    for wrong in (labels[:1], labels.int(), labels[:, None]):
        with pytest.raises(ValueError, match="labels must be an int64 map of each of 2 images, got torch"):
            network.train().losses(image, wrong)
    with pytest.raises(ValueError, match="mask2former learns whole masks and takes no class weights"):
        segmenter("mask2former").train().losses(image, labels, torch.ones(5))


@pytest.mark.parametrize("head", ["upernet", "mask2former"])
def test_without_transformers(head: HeadName, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in sys.modules if each.split(".")[0] == "transformers"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert segmenter("segformer") is not None
    with pytest.raises(ImportError, match=r"needs transformers: pip install 'internimage-torch\[segmentation\]'"):
        segmenter(head)
