"""The DETR family on our backbone: against transformers' own models, by hand, and learning two pictures."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

pytest.importorskip("transformers")
pytest.importorskip("scipy", reason="transformers matches queries and objects with scipy")

import transformers

from internimage import InternImageConfig
from internimage.model.detection import Objects
from internimage.model.detection.detr import DetrConfig, Family, InternImageDetr
from internimage.model.detection.detr.transformer import _layers, ask
from internimage.model.detection.queries import detected, target_of
from internimage.structures import Placement
from internimage.training.param_groups import blocks_after

BACKBONE = InternImageConfig.stacked(8, 8, 1, 1, num_classes=0)
FAMILIES: tuple[Family, ...] = get_args(Family)
SIDES = ("encoder", "decoder")
SMALL: dict[str, Any] = {
    f"{side}_{what}": size for side in SIDES for what, size in (("attention_heads", 2), ("ffn_dim", 32))
}
SMALL |= {"num_queries": 12, "encoder_layers": 1, "decoder_layers": 2, "d_model": 64}
OPTIONS = {
    "deformable_detr": SMALL,
    "rt_detr_v2": SMALL | {"encoder_hidden_dim": 32, "num_denoising": 4},
    "d_fine": SMALL | {"encoder_hidden_dim": 32, "num_denoising": 4},
}
TRUTH = Objects(torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40]]), torch.tensor([2, 0]))
NOTHING = Objects(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
# The first picture fills the batch; the second was enlarged, and is padded at both sides.
PLACES = [Placement((64, 96), (64, 96)), Placement.fit((24, 40), (48, 80))]


def detector(family: Family, score_threshold: float = 0.05, **options: Any) -> InternImageDetr:
    return InternImageDetr(DetrConfig(BACKBONE, 3, family, OPTIONS[family] | options, score_threshold=score_threshold))


@torch.no_grad()
def stir(model: InternImageDetr) -> InternImageDetr:
    """Weights that start at zero, so that layers look and say different things."""
    for name, weight in model.named_parameters():
        if weight.dim() > 1 and not weight.any():
            torch.nn.init.normal_(weight, std=0.1)
        assert weight.isfinite().all(), name
    return model


def images() -> Tensor:
    image = torch.randn(2, 3, 64, 96)
    image[1, :, 48:], image[1, :, :, 80:] = 0, 0
    return image


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_boxes_lie_in_the_original_pictures_best_first(family: Family) -> None:
    found = detector(family, score_threshold=0.0).eval()(images(), PLACES)
    assert len(found) == 2
    for each, place in zip(found, PLACES, strict=True):
        count = len(each.scores)
        assert 0 < count <= 12 * 3
        assert each.boxes.shape == (count, 4)
        assert each.masks is None
        assert (each.boxes >= 0).all()
        assert (each.boxes <= each.boxes.new_tensor(place.original_size).flip(0).repeat(2)).all()
        assert (each.boxes[:, 2:] > each.boxes[:, :2]).all()
        assert each.scores.tolist() == sorted(each.scores.tolist(), reverse=True)
        assert set(each.labels.tolist()) <= {0, 1, 2}


@torch.inference_mode()
def test_few_and_good_enough_detections() -> None:
    model, image = detector("d_fine", score_threshold=0.0).eval(), images()
    everything = model(image)[0]
    model.config = replace(model.config, detections=5)
    assert torch.equal(model(image)[0].boxes, everything.boxes[:5])
    model.config = replace(model.config, score_threshold=float(everything.scores[2]))
    assert len(model(image)[0].scores) == 2
    model.config = replace(model.config, score_threshold=1.0)
    assert [tuple(each.boxes.shape) for each in model(image)] == [(0, 4), (0, 4)]


@pytest.mark.parametrize(("family", "unit"), [("deformable_detr", (48, 80)), ("rt_detr_v2", (64, 96))])
def test_boxes_by_hand(family: Family, unit: tuple[int, int]) -> None:
    """Relative to the picture where padding is masked, else to the padded one; and back, to half as many pixels."""
    model, (height, width) = detector(family), unit
    assert model._unit(images(), PLACES[1]) == unit
    boxes = torch.tensor([[8.0, 12, 40, 36], [0, 0, 80, 48]])
    target = target_of(Objects(boxes, torch.tensor([2, 0])), unit)
    assert target["class_labels"].tolist() == [2, 0]
    assert target["boxes"][0].tolist() == pytest.approx([24 / width, 24 / height, 32 / width, 24 / height])
    # A third query lies in the padding alone, a fourth half of it.
    beyond = torch.tensor([[90 / width, 10 / height, 8 / width, 8 / height], [80 / width, 8 / height, 16 / width, 0.1]])
    logits = torch.tensor([[-9.0, -9, 2], [1, -9, -9], [3, -9, -9], [-9, 0, -9]])
    boxes = torch.cat((target["boxes"], beyond))
    found = detected(logits, boxes, unit, PLACES[1], limit=100, threshold=0.05)
    assert found.labels.tolist() == [2, 0, 1]
    assert found.scores.tolist() == pytest.approx(torch.tensor([2.0, 1, 0]).sigmoid().tolist())
    low, high = (8 - 0.05 * height) / 2, (8 + 0.05 * height) / 2
    expected = torch.tensor([[4, 6, 20, 18], [0, 0, 40, 24], [36, low, 40, high]])
    torch.testing.assert_close(found.boxes, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_and_losses_are_those_of_transformers(family: Family) -> None:
    """Its own detector around our weights. Where its loss differs, that is intended: see `losses_of`."""
    options = {"dropout": 0.0} if family == "deformable_detr" else {"num_denoising": 0}
    model = stir(detector(family, **options))
    name = {"deformable_detr": "DeformableDetr", "rt_detr_v2": "RTDetrV2", "d_fine": "DFine"}[family]
    theirs = getattr(transformers, name + "ForObjectDetection")(model.transformer.config)
    theirs.model = model.transformer
    theirs.class_embed, theirs.bbox_embed = model.transformer.decoder.class_embed, model.transformer.decoder.bbox_embed
    image, mask = images(), torch.zeros(2, 64, 96, dtype=torch.long)
    mask[0], mask[1, :48, :80] = 1, 1
    with torch.inference_mode():
        answers, wanted = ask(model.eval().transformer, image, PLACES), theirs.eval()(image, mask)
    torch.testing.assert_close(answers.logits[:, -1], wanted.logits)
    torch.testing.assert_close(answers.boxes[:, -1], wanted.pred_boxes, atol=1e-5, rtol=1e-4)
    if family == "d_fine":
        return
    labels = [
        target_of(truth, model._unit(image, place)) for truth, place in zip([TRUTH, NOTHING], PLACES, strict=True)
    ]
    theirs.train()
    model.train()
    wanted, losses = theirs(image, mask, labels=labels), model.losses(image, [TRUTH, NOTHING], PLACES)
    ours = sum(
        value / (2 if family == "deformable_detr" and key.startswith("class") else 1) for key, value in losses.items()
    )
    torch.testing.assert_close(ours, wanted.loss, atol=1e-4, rtol=1e-4)


def test_distributions_of_d_fine_belong_to_their_boxes() -> None:
    """Every layer's distributions around its start give its boxes; copies of the truth are no answers."""
    from transformers.models.d_fine.modeling_d_fine import distance2bbox, weighting_function

    model = stir(detector("d_fine")).train()
    network, image = model.transformer, images()
    targets = [target_of(truth, (64, 96)) for truth in (TRUTH, NOTHING)]
    answers = ask(network, image, PLACES, targets)
    copies = answers.logits.shape[2] - 12
    assert answers.whole.denoising_meta_values["dn_num_split"] == [copies, 12]
    bins = weighting_function(network.config.max_num_bins, network.decoder.up, network.decoder.reg_scale)
    for queries, count in ((slice(copies, None), 12), (slice(copies), copies)):
        first, *layers = _layers(network.config, answers, queries)
        assert "pred_corners" not in first
        assert len(layers) == 2
        for layer in layers:
            assert layer["logits"].shape == (2, count, 3)
            distances = network.decoder.integral(layer["pred_corners"], bins)
            boxes = distance2bbox(layer["ref_points"], distances, network.decoder.reg_scale)
            torch.testing.assert_close(layer["pred_boxes"], boxes.clamp(0, 1))
    assert model.losses(image, [TRUTH, NOTHING], PLACES)["ddf_aux"] > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_reach_every_weight_also_without_objects(family: Family) -> None:
    model, image = detector(family), images()
    # As in a run that begins with a look at its validation set: what the network remembers must not break training.
    with torch.inference_mode():
        model.eval()(image, PLACES)
    model.train()
    names: set[str] = set()
    for truths in ([TRUTH, NOTHING], [NOTHING, NOTHING]):
        losses = model.losses(image, truths, PLACES)
        assert all(each.isfinite() for each in losses.values())
        names = names or set(losses)
        assert set(losses) == names
        model.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        # D-FINE keeps two constants among its parameters.
        without = [name for name, each in model.named_parameters() if each.grad is None]
        assert without == [f"transformer.decoder.{name}" for name in ("reg_scale", "up") if family == "d_fine"]
        assert all(each.grad is None or each.grad.isfinite().all() for each in model.parameters())
    assert {"class", "box", "giou", "class_aux", "box_aux", "giou_aux"} <= names
    assert any(name.endswith("_dn") for name in names) == (family != "deformable_detr")
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.losses(image, [TRUTH, NOTHING], PLACES)
    assert all(each.dtype == torch.float32 and each.isfinite() for each in losses.values())
    with pytest.raises(ValueError, match=r"detector\.train\(\)"):
        model.eval().losses(image, [TRUTH, NOTHING], PLACES)


@pytest.mark.parametrize(
    "family",
    [family if family == "deformable_detr" else pytest.param(family, marks=pytest.mark.slow) for family in FAMILIES],
)
def test_learns_two_pictures_of_which_one_is_padded(family: Family) -> None:
    """Squares of different colours on noise: their boxes and classes, in the original pixels."""
    image, places = 0.1 * images(), [PLACES[0], Placement.fit((128, 128), (64, 64))]
    image[1, :, :, 64:] = 0
    truths = [
        Objects(torch.tensor([[8.0, 8, 32, 40], [52, 20, 84, 52]]), torch.tensor([2, 0])),
        Objects(torch.tensor([[12.0, 16, 44, 40]]), torch.tensor([1])),
    ]
    for picture, truth in zip(image, truths, strict=True):
        for (x1, y1, x2, y2), label in zip(truth.boxes.int().tolist(), truth.labels.tolist(), strict=True):
            picture[label, y1:y2, x1:x2] += 2
    quick = family == "deformable_detr"
    model, steps = detector(family, decoder_layers=1 if quick else 2).train(), 45 if quick else 150
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3 if quick else 1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        loss = torch.stack(list(model.losses(image, truths, places).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    with torch.inference_mode():
        found = model.eval()(image, places)
        alone = model(image[1:, :, :, :64], places[1:])[0]
    wanted = [truths[0].boxes, truths[1].boxes * 2]
    for each, truth, boxes in zip(found, truths, wanted, strict=True):
        best = [int((each.labels == label).nonzero()[0, 0]) for label in truth.labels.tolist()]
        assert (box_iou(each.boxes[best], boxes).diag() > 0.75).all()
        assert (each.scores[best] > 0.5).all()
    if quick:
        # Not to the last digit: the backbone and the normalisation of the maps see padding.
        assert alone.labels[0] == found[1].labels[0] == 1
        assert box_iou(alone.boxes[:1], found[1].boxes[:1]) > 0.9
        assert float(alone.scores[0]) == pytest.approx(float(found[1].scores[0]), abs=0.1)


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_have_one_name_and_go_through_a_file(family: Family) -> None:
    model, image = detector(family, score_threshold=0.0).eval(), images()
    state = model.state_dict()
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)
    assert {key.split(".")[0] for key in state} == {"backbone", "transformer"}
    assert {key.removeprefix("backbone.") for key in state if key.startswith("backbone.")} == set(
        model.backbone.state_dict()
    )
    depths = BACKBONE.depths
    assert [key for key in state if blocks_after(key, depths) and not key.startswith("backbone.")] == []
    assert blocks_after("backbone.stages.0.blocks.0.dcn.offset.weight", depths) == 3
    torch.manual_seed(1)
    other = detector(family, score_threshold=0.0).eval()
    other.load_state_dict(state)
    twin = copy.deepcopy(model)
    with torch.inference_mode():
        expected = model(image, PLACES)
        for each in (other, twin):
            assert all(torch.equal(*boxes) for boxes in zip_boxes(each(image, PLACES), expected))
        # A copy asks its own backbone.
        for weight in model.backbone.parameters():
            weight.zero_()
        assert all(torch.equal(*boxes) for boxes in zip_boxes(twin(image, PLACES), expected))


def zip_boxes(ours: list[Any], theirs: list[Any]) -> list[tuple[Tensor, Tensor]]:
    return [(one.boxes, other.boxes) for one, other in zip(ours, theirs, strict=True)]


@pytest.mark.parametrize("family", FAMILIES)
def test_boxes_that_are_no_numbers_make_a_loss_that_is_none(family: Family) -> None:
    """Not an error of the matching: training guards against such losses, and says what was seen."""
    model = detector(family)
    with torch.no_grad():
        for head in model.transformer.decoder.bbox_embed:
            head.layers[-1].bias.fill_(float("nan"))
    losses = model.train().losses(images(), [TRUTH, NOTHING], PLACES)
    assert not torch.stack(list(losses.values())).sum().isfinite()
