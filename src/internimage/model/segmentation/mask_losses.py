"""What Mask2Former learns from: label maps as one mask per class, and transformers' losses.

Shape legend: N images, C classes, Q queries, H W of the images, h w of the maps at stride 4.
"""

# transformers is typed in part only.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, distributed

from internimage.model.segmentation.layers import full_precision
from internimage.structures import IGNORED

NEEDS = "Mask2Former needs {}: pip install 'internimage-torch[segmentation]'"
WEIGHTS = {"class": 2.0, "mask": 5.0, "dice": 5.0}
"""Of the losses, and of the costs by which queries and masks are matched."""


@dataclass(frozen=True)
class Answers:
    """What the queries say before the first decoder layer and after each.

    Args:
        classes: logits (N, Q, C + 1) each, "no object" last.
        masks: logits (N, Q, h, w) each.
    """

    classes: list[Tensor]
    masks: list[Tensor]


def mask_losses(settings: Any, answers: Answers, labels_NHW: Tensor) -> dict[str, Tensor]:
    """Weighted losses: ``class``, ``mask``, ``dice``, and these with ``_aux``, sums over the answers before the last.

    Every class that occurs in an image is one mask to find; ignored pixels belong to none, and lie outside each. An
    image without a class teaches "no object" alone. The arithmetic is transformers', which is that of the released
    code, but for two things. What the losses of masks are divided by is the number of masks, a mean over processes:
    it is taken here, by PyTorch's own communication, where transformers asks accelerate and else counts one process.
    The released code counts queries that have a mask, which is less where an image has more classes than queries.

    Args:
        settings: transformers' configuration of the network.
        answers: of all layers.
        labels_NHW: the class of every pixel, int64; 255 is ignored.

    Raises:
        ImportError: scipy is missing.
    """
    if find_spec("scipy") is None:
        raise ImportError(NEEDS.format("scipy to train"))
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

    classes = [_present(labels_HW) for labels_HW in labels_NHW]
    masks = [
        (labels_HW == present[:, None, None]).float() for labels_HW, present in zip(labels_NHW, classes, strict=True)
    ]
    criterion: Any = Mask2FormerLoss(settings, {}).to(labels_NHW.device)
    count = mean_over_processes(sum(map(len, classes)), labels_NHW.device).clamp(min=1)
    criterion.get_num_masks = partial(_known, count)
    # 16 bits of a mask are too few to match and to compare it.
    with full_precision(labels_NHW.device):
        layers = [
            {"class_queries_logits": each.float(), "masks_queries_logits": mask.float()}
            for each, mask in zip(answers.classes, answers.masks, strict=True)
        ]
        found: dict[str, Tensor] = criterion(
            **layers[-1], mask_labels=masks, class_labels=classes, auxiliary_predictions=layers[:-1]
        )
    return _summed(found)


def mean_over_processes(count: int, device: torch.device) -> Tensor:
    """A number of this process as a float32 scalar; with others, the mean of theirs."""
    total = torch.tensor(float(count), device=device)
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(total)
        total /= distributed.get_world_size()
    return total


def _known(count: Tensor, *_: Any, **__: Any) -> Tensor:
    """Stands for transformers' own count."""
    return count


def _present(labels_HW: Tensor) -> Tensor:
    """Classes that occur, in order."""
    found = labels_HW.unique()
    return found[found != IGNORED]


def _summed(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Under our names: of the last layer, and sums over the others, whose keys end in their numbers."""
    losses: dict[str, Tensor] = {}
    for key, value in found.items():
        what = next(name for name in ("cross_entropy", "mask", "dice") if key.startswith(f"loss_{name}"))
        name = "class" if what == "cross_entropy" else what
        weighted = WEIGHTS[name] * value
        name += "_aux" if key[-1].isdigit() else ""
        losses[name] = losses.get(name, value.new_zeros(())) + weighted
    return losses
