"""transformers' encoders and decoders of the DETR family: built on our backbone, started, asked, and taught.

Shape legend: N images, L decoder layers, Q queries, C classes, H W of the padded batch.
"""

# transformers is typed in part only.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from internimage.model.backbone import InternImage
from internimage.model.detection.detr.attention import use_fast_attention
from internimage.model.detection.queries import NEEDS, Target
from internimage.structures import Placement

if TYPE_CHECKING:
    from internimage.model.detection.detr.network import DetrConfig

_CLASSES = {"deformable_detr": "DeformableDetr", "rt_detr_v2": "RTDetrV2", "d_fine": "DFine"}
# What follows from the backbone, what this code or transformers' own leaves no choice in, and what has no effect.
_SET_HERE = frozenset(
    (
        *("anchor_image_size", "auxiliary_loss", "backbone_config", "decoder_in_channels", "decoder_n_levels"),
        *("dice_loss_coefficient", "dilation", "encoder_in_channels", "eos_coefficient", "eval_idx", "eval_size"),
        *("feat_strides", "freeze_backbone_batch_norms", "init_std", "init_xavier_std", "initializer_range"),
        *("layer_scale", "learn_initial_query", "mask_loss_coefficient", "max_position_embeddings", "num_channels"),
        *("return_intermediate", "tie_word_embeddings", "two_stage", "two_stage_num_proposals", "use_focal_loss"),
        "with_box_refine",
    )
)
# Deformable DETR's weight of the classes, in matching and in the loss; transformers has 1, and no setting for the loss.
_CLASS_WEIGHT = 2
# How probable every class is at first.
_PRIOR = 0.01
# Layers that transformers starts as released: where to look at first, and D-FINE's gates, half open.
_STARTED = ("sampling_offsets", "attention_weights", "gateway.gate")
_LOSS = re.compile(r"loss_(?P<what>[a-z]+)(?:_(?P<of>aux|dn))?(?P<layer>_\d+)?")
_WHAT = {"ce": "class", "vfl": "class", "bbox": "box"}


@dataclass(frozen=True)
class Answers:
    """What decoder layers say of every query; in evaluation, the last one.

    Args:
        logits: (N, L, Q, C), of each class.
        boxes: (N, L, Q, 4), center x and y, width, height, relative to the picture.
        whole: all that transformers returns.
    """

    logits: Tensor
    boxes: Tensor
    whole: Any


class Maps(nn.Module):
    """Stands where transformers keeps its convolutional encoder, and asks a backbone that is the detector's."""

    def __init__(self, backbone: InternImage, count: int) -> None:
        super().__init__()
        # In a tuple it is no submodule: its weights have one name, and files hold them once.
        self._backbone = (backbone,)
        self._count = count

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The last maps, and which of their positions are no padding."""
        maps = self._backbone[0](pixel_values)[-self._count :]
        mask_1NHW = pixel_mask[None].float()
        return [(each, functional.interpolate(mask_1NHW, size=each.shape[-2:])[0].bool()) for each in maps]


def build_transformer(config: DetrConfig, backbone: InternImage) -> Any:
    """Encoder and decoder over a backbone, with random weights; raises as `InternImageDetr`."""
    try:
        import transformers
        from huggingface_hub.errors import StrictDataclassError
    except ImportError as error:
        raise ImportError(NEEDS.format("transformers")) from error
    library: Any = transformers
    kind = getattr(library, _CLASSES[config.family] + "Config")
    shared = {each.name for each in fields(library.PreTrainedConfig)}
    _check_names(config, {each.name for each in fields(kind)} - shared)
    levels, count = _levels(config)
    # transformers wants to build the backbone itself: it gets a small one with maps of the same channels.
    stand_in = library.ResNetConfig(
        embedding_size=4,
        hidden_sizes=[4, *config.backbone.stage_channels[1:]],
        depths=[1, 1, 1, 1],
        out_features=["stage2", "stage3", "stage4"][-count:],
    )
    settings = _settings(config, levels, count) | {"backbone_config": stand_in, "num_labels": config.num_classes}
    try:
        built = getattr(library, _CLASSES[config.family] + "ForObjectDetection")(kind(**settings))
    except (StrictDataclassError, ValueError) as error:
        raise ValueError(f"options of {config.family}: {' '.join(str(error).split())}") from error
    network = built.model
    network.backbone = Maps(backbone, count)
    # Where two of the families have them anyway: nothing is left outside the model, and nothing has two names.
    network.decoder.class_embed, network.decoder.bbox_embed = built.class_embed, built.bbox_embed
    use_fast_attention(network)
    _start(network)
    return network


def _check_names(config: DetrConfig, known: set[str]) -> None:
    for name in config.options:
        if name in _SET_HERE and name in known:
            raise ValueError(f"options of {config.family}: the detector sets {name} itself; leave it out")
        if name not in known:
            free = sorted(known - _SET_HERE)
            close = difflib.get_close_matches(name, free, 1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(free)}"
            raise ValueError(f"options of {config.family}: unknown setting {name!r}; {hint}")


def _levels(config: DetrConfig) -> tuple[int, int]:
    """Maps that the decoder reads, and how many of them are the backbone's last ones."""
    most, default = (8, 4) if config.family == "deformable_detr" else (3, 3)
    levels = config.options.get("num_feature_levels", default)
    if type(levels) is not int or not 1 <= levels <= most:
        raise ValueError(f"options of {config.family}: num_feature_levels must be 1 to {most}, got {levels!r}")
    return levels, min(levels, 3)


def _settings(config: DetrConfig, levels: int, count: int) -> dict[str, Any]:
    """Settings of transformers' configuration: the families' own, the user's, and those that leave no choice."""
    fixed: dict[str, Any] = {"auxiliary_loss": True, "tie_word_embeddings": False, "with_box_refine": True}
    if config.family == "deformable_detr":
        return {"class_cost": _CLASS_WEIGHT, **config.options, **fixed}
    own: dict[str, Any] = {"encode_proj_layers": [count - 1], "initializer_bias_prior_prob": _PRIOR}
    options = own | dict(config.options)
    fixed |= {
        "encoder_in_channels": list(config.backbone.stage_channels[-count:]),
        "decoder_in_channels": [options.get("encoder_hidden_dim", 256)] * count,
        "feat_strides": list(config.backbone.stage_strides[-count:]),
    }
    return options | fixed | ({"decoder_n_levels": levels} if config.family == "rt_detr_v2" else {})


@torch.no_grad()
def _start(network: Any) -> None:
    """Weights to train from, as the families were released.

    transformers' own are meant to be replaced by a file's: linear layers and convolutions, in RT-DETRv2 also batch
    normalisations, are nearly zero, and every class of Deformable DETR is as probable as not. Decision 14 has figures.

    Source: ``_reset_parameters`` of the released families, in one rule: Deformable-DETR 11169a6, RT-DETR 068dfde,
    D-FINE 4a1f73a.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d | nn.Embedding):
            module.reset_parameters()
        elif isinstance(module, nn.Linear | nn.Conv2d) and not name.endswith(_STARTED):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    decoder, prior = network.decoder, getattr(network.config, "initializer_bias_prior_prob", None) or _PRIOR
    scores, heads = [*decoder.class_embed], [*decoder.bbox_embed]
    if network.config.model_type != "deformable_detr":
        scores, heads = [*scores, network.enc_score_head], [*heads, network.enc_bbox_head]
    if network.config.model_type == "d_fine":
        heads = [*heads, decoder.pre_bbox_head, *(each.reg_conf for each in decoder.lqe_layers)]
    for score in scores:
        nn.init.constant_(score.bias, math.log(prior / (1 - prior)))
    for head in heads:
        nn.init.zeros_(head.layers[-1].weight)
        nn.init.zeros_(head.layers[-1].bias)
    if network.config.model_type == "deformable_detr":
        # Boxes of an eighth of the picture, not of half of it.
        heads[0].layers[-1].bias[2:] = -2.0


def ask(
    network: Any, image_NCHW: Tensor, placements: Sequence[Placement], targets: Sequence[Target] | None = None
) -> Answers:
    """Run the whole detector; with the truth, also on noisy copies of it where the family learns from them."""
    mask_NHW = torch.zeros(image_NCHW[:, 0].shape, dtype=torch.long, device=image_NCHW.device)
    for mask_HW, place in zip(mask_NHW, placements, strict=True):
        mask_HW[: place.size[0], : place.size[1]] = 1
    if network.config.model_type != "deformable_detr":
        whole = network(image_NCHW, pixel_mask=mask_NHW, labels=targets)
        return Answers(whole.intermediate_logits, whole.intermediate_reference_points, whole)
    whole = network(image_NCHW, pixel_mask=mask_NHW)
    references = (whole.init_reference_points, *whole.intermediate_reference_points.unbind(1))
    logits: list[Tensor] = []
    boxes: list[Tensor] = []
    for layer, hidden in enumerate(whole.intermediate_hidden_states.unbind(1)):
        # The first reference is a point.
        moved = functional.pad(torch.logit(references[layer].float(), 1e-5), (0, 4 - references[layer].shape[-1]))
        logits.append(network.decoder.class_embed[layer](hidden))
        boxes.append((network.decoder.bbox_embed[layer](hidden) + moved).sigmoid())
    return Answers(torch.stack(logits, 1), torch.stack(boxes, 1), whole)


def losses_of(network: Any, answers: Answers, targets: Sequence[Target]) -> dict[str, Tensor]:
    """Weighted losses by name; raises as `InternImageDetr.losses`.

    The arithmetic is transformers'. Which answers it gets is decided here: its own functions let copies of the truth
    compete with the answers in older versions, and pair D-FINE's distributions with the boxes of the layer before.
    """
    if find_spec("scipy") is None:
        raise ImportError(NEEDS.format("scipy to train"))
    config, whole = network.config, answers.whole
    # 16 bits of a box are too few to match and to compare it.
    with torch.autocast(answers.boxes.device.type, enabled=False):
        if config.model_type == "deformable_detr":
            layers = _layers(config, answers, slice(None))
            found = _criterion(config)(layers[-1] | {"auxiliary_outputs": layers[:-1]}, targets)
            weights = {"ce": _CLASS_WEIGHT, "bbox": config.bbox_loss_coefficient, "giou": config.giou_loss_coefficient}
            return _whole(_summed(found, weights), answers)
        meta = getattr(whole, "denoising_meta_values", None)
        copies = meta["dn_num_split"][0] if meta else 0
        layers = _layers(config, answers, slice(copies, None))
        proposals = {"logits": whole.enc_topk_logits.float(), "pred_boxes": whole.enc_topk_bboxes.float().nan_to_num()}
        outputs: dict[str, Any] = layers[-1] | {"auxiliary_outputs": [*layers[:-1], proposals]}
        if meta:
            outputs |= {"dn_auxiliary_outputs": _layers(config, answers, slice(copies))}
            outputs |= {"denoising_meta_values": meta}
        summed = _summed(_criterion(config).to(answers.boxes.device)(outputs, targets), {})
    if config.num_denoising and not meta:
        # A batch without objects: the same names, and a gradient for all, which parallel training waits for.
        nothing = 0 * network.denoising_class_embed.weight.sum()
        summed |= {f"{name}_dn": nothing for name in list(summed) if not name.endswith("_aux")}
    return _whole(summed, answers)


def _whole(summed: dict[str, Tensor], answers: Answers) -> dict[str, Tensor]:
    """Boxes that are no numbers can't be matched, and are taken for others; the loss then is no number either."""
    return summed | {"box": summed["box"] + 0 * answers.boxes.float().sum()}


def _layers(config: Any, answers: Answers, queries: slice) -> list[dict[str, Tensor]]:
    """What each layer says of some queries, as transformers' losses take it."""
    logits = answers.logits[:, :, queries].float()
    boxes = answers.boxes[:, :, queries].float().nan_to_num().clamp(0, 1)
    layers = [
        {"logits": one, "pred_boxes": other} for one, other in zip(logits.unbind(1), boxes.unbind(1), strict=True)
    ]
    if config.model_type == "d_fine":
        corners = answers.whole.intermediate_predicted_corners[:, :, queries].float().unbind(1)
        starts = answers.whole.initial_reference_points[:, :, queries].float().unbind(1)
        # Before its first layer refines boxes, D-FINE has those of an ordinary head.
        for layer, corner, start in zip(layers[1:], corners, starts, strict=True):
            layer |= {"pred_corners": corner, "ref_points": start}
            layer |= {"teacher_corners": corners[-1], "teacher_logits": logits[:, -1]}
    return layers


def _criterion(config: Any) -> Any:
    from transformers.loss.loss_d_fine import DFineLoss
    from transformers.loss.loss_deformable_detr import DeformableDetrHungarianMatcher, DeformableDetrImageLoss
    from transformers.loss.loss_rt_detr import RTDetrLoss

    if config.model_type == "deformable_detr":
        matcher = DeformableDetrHungarianMatcher(config.class_cost, config.bbox_cost, config.giou_cost)
        return DeformableDetrImageLoss(matcher, config.num_labels, config.focal_alpha, ["labels", "boxes"])
    return DFineLoss(config) if config.model_type == "d_fine" else RTDetrLoss(config)


def _summed(found: Mapping[str, Tensor], weights: Mapping[str, float]) -> dict[str, Tensor]:
    """Losses of the last layer, sums over the other layers, sums over copies of the truth."""
    summed: dict[str, Tensor] = {}
    for key, value in found.items():
        parts = _LOSS.fullmatch(key)
        assert parts is not None, key
        of = parts["of"] or ("aux" if parts["layer"] else "")
        name = _WHAT.get(parts["what"], parts["what"]) + (f"_{of}" if of else "")
        summed[name] = summed.get(name, value.new_zeros(())) + weights.get(parts["what"], 1.0) * value
    return summed
