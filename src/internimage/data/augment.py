"""Training-time augmentation: the official recipe through timm, and mixing of whole batches.

Only training imports this module: it needs timm and torchvision. The random numbers come from ``random``, ``numpy``
and ``torch``, so all three have to be seeded for a repeatable run.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from operator import methodcaller
from typing import Any, cast

import torch
from PIL import Image
from timm.data.auto_augment import AugmentOp, posterize
from timm.data.mixup import Mixup, mixup_target
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torchvision import transforms

from internimage.data.preprocess import check_mode, crop_image
from internimage.structures import Preprocess


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied; the defaults are the official recipe for ImageNet-1K.

    Source: ``classification/config.py`` and ``classification/dataset/build.py`` of the official code.

    Args:
        auto_augment: a policy in timm's notation, such as ``rand-m9-mstd0.5-inc1`` (RandAugment), or None.
        color_jitter: strength of random brightness, contrast and saturation, 0 or more. As in timm, it is used only
            when ``auto_augment`` is None or a 3-Augment policy.
        hflip: probability of a horizontal flip.
        random_erasing: probability of erasing a random rectangle after normalisation.
        erasing_mode: what fills it: ``pixel`` (noise per pixel), ``rand`` (one random colour) or ``const`` (zero).
        mixup: alpha of mixup's beta distribution; 0 turns mixup off.
        cutmix: alpha of CutMix's beta distribution; 0 turns CutMix off.
        mix_probability: probability that a batch is mixed at all.
        switch_probability: probability of CutMix instead of mixup, where both are on.
        scale: smallest and largest share of the picture that the random resized crop takes, in (0, 1]. At
            ``(1, 1)`` there is no random crop: the picture is cropped as in evaluation.
        ratio: smallest and largest aspect ratio (width / height) of that crop.
        padding: above 0, the picture is cropped as in evaluation, padded with this many black pixels on each side,
            and cropped at random to the same size; ``scale`` and ``ratio`` are then not used. The official code takes
            4 for inputs of 32 pixels or fewer.
    """

    auto_augment: str | None = "rand-m9-mstd0.5-inc1"
    color_jitter: float = 0.4
    hflip: float = 0.5
    random_erasing: float = 0.25
    erasing_mode: str = "pixel"
    mixup: float = 0.8
    cutmix: float = 1.0
    mix_probability: float = 1.0
    switch_probability: float = 0.5
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    padding: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", tuple(self.scale))
        object.__setattr__(self, "ratio", tuple(self.ratio))
        for name in ("hflip", "random_erasing", "mix_probability", "switch_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a probability in [0, 1], got {getattr(self, name)}")
        for name in ("color_jitter", "mixup", "cutmix", "padding"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if self.erasing_mode not in ("pixel", "rand", "const"):
            raise ValueError(f"erasing_mode must be pixel, rand or const, got {self.erasing_mode!r}")
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale must be two rising shares of the picture in (0, 1], got {self.scale}")
        if len(self.ratio) != 2 or not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio must be two rising positive aspect ratios, got {self.ratio}")

    @classmethod
    def none(cls) -> Augmentation:
        """No variation at all: training sees the pictures as evaluation does."""
        return cls(None, 0.0, hflip=0.0, random_erasing=0.0, mixup=0.0, cutmix=0.0, scale=(1.0, 1.0))

    @classmethod
    def light(cls) -> Augmentation:
        """Flips and shifts by up to 4 pixels: for small images and short runs."""
        return cls(None, 0.0, hflip=0.5, random_erasing=0.0, mixup=0.0, cutmix=0.0, padding=4)


@dataclass(frozen=True)
class TrainTransform:
    """Varies one image and makes it a float32 tensor of shape (C, size, size); see `train_transform`."""

    preprocess: Preprocess
    steps: transforms.Compose

    def __call__(self, image: Image.Image) -> Tensor:
        """The network's input for an image of mode RGB (or L, for one channel)."""
        check_mode(image, self.preprocess)
        return cast(Tensor, self.steps(image))


def train_transform(augmentation: Augmentation, preprocess: Preprocess) -> Callable[[Image.Image], Tensor]:
    """The transform of training images; the counterpart of `to_tensor`, with the same size, mean and deviation.

    Grey images stay grey, but pass the policy and the colour jitter as RGB, because timm's operations fill their
    borders with a colour.

    Raises:
        ValueError: timm does not know the ``auto_augment`` policy.
    """
    grey = preprocess.in_chans == 1
    as_rgb = replace(preprocess, mean=preprocess.mean * 3, std=preprocess.std * 3) if grey else preprocess
    crop, vary, _ = _timm_stages(augmentation, as_rgb)
    *_, finish = _timm_stages(augmentation, preprocess)
    if grey and vary:
        vary = [methodcaller("convert", "RGB"), *vary, methodcaller("convert", "L")]
    return TrainTransform(preprocess, transforms.Compose([*_geometry(augmentation, preprocess, crop), *vary, *finish]))


def _timm_stages(augmentation: Augmentation, preprocess: Preprocess) -> list[list[Callable[..., Any]]]:
    """timm's steps in three lists: crop and flip, colour policy, tensor and erasing."""
    # timm's annotations know neither None here nor the three stages of its answer.
    color_jitter: Any = augmentation.color_jitter or None
    try:
        stages: Any = create_transform(
            input_size=preprocess.size,
            is_training=True,
            scale=augmentation.scale,
            ratio=augmentation.ratio,
            hflip=augmentation.hflip,
            color_jitter=color_jitter,
            auto_augment=augmentation.auto_augment,
            interpolation=preprocess.interpolation,
            mean=preprocess.mean,
            std=preprocess.std,
            re_prob=augmentation.random_erasing,
            re_mode=augmentation.erasing_mode,
            separate=True,
        )
    # How timm reports a policy that it cannot read.
    except (AssertionError, KeyError, ValueError) as error:
        fix = "use one in its notation, such as rand-m9-mstd0.5-inc1, or None"
        raise ValueError(f"timm does not know the auto_augment policy {augmentation.auto_augment!r}; {fix}") from error
    crop, vary, finish = (list(stage.transforms) for stage in stages)
    for operation in [operation for step in vary for operation in _operations(step)]:
        if operation.name.startswith("Posterize"):
            operation.aug_fn = _posterize
    return [crop, vary, finish]


def _operations(policy: Any) -> list[AugmentOp]:
    # RandAugment and AugMix have one list of operations, AutoAugment a list of such lists; colour jitter has none.
    return [*getattr(policy, "ops", ()), *itertools.chain(*getattr(policy, "policy", ()))]


def _posterize(image: Image.Image, bits_to_keep: int, **_: Any) -> Image.Image:
    # The official recipe now and then asks for 0 bits: black in older Pillow, an error in recent ones.
    return posterize(image, bits_to_keep) if bits_to_keep > 0 else Image.new(image.mode, image.size)


def _geometry(
    augmentation: Augmentation, preprocess: Preprocess, crop: list[Callable[..., Any]]
) -> list[Callable[..., Any]]:
    """timm's random resized crop and flip, the crop replaced where the augmentation asks for another."""
    if augmentation.padding > 0:
        random_crop = transforms.RandomCrop(preprocess.size, padding=augmentation.padding)
        return [partial(crop_image, preprocess=preprocess), random_crop, *crop[1:]]
    if augmentation.scale == (1.0, 1.0):
        return [partial(crop_image, preprocess=preprocess), *crop[1:]]
    return crop


@dataclass(frozen=True)
class BatchMixer:
    """Mixes the images of a batch and softens their targets; see `batch_mixer`."""

    mixup: Mixup | None
    num_classes: int
    label_smoothing: float

    def __call__(self, image_NCHW: Tensor, target_N: Tensor) -> tuple[Tensor, Tensor]:
        """New images (N, C, H, W) and their targets (N, num_classes)."""
        if image_NCHW.ndim != 4 or target_N.shape != image_NCHW.shape[:1]:
            shapes = f"got {tuple(image_NCHW.shape)} and {tuple(target_N.shape)}"
            raise ValueError(f"expected images of shape (N, C, H, W) and N class indices, {shapes}")
        plain = mixup_target(target_N, self.num_classes, smoothing=self.label_smoothing)
        num_even = len(image_NCHW) // 2 * 2
        if self.mixup is None or num_even == 0:
            return image_NCHW, plain
        # timm mixes in place, and only batches of even size.
        mixed, soft = self.mixup(image_NCHW[:num_even].clone(), target_N[:num_even])
        return torch.cat([mixed, image_NCHW[num_even:]]), torch.cat([soft, plain[num_even:]])


def batch_mixer(
    augmentation: Augmentation, num_classes: int, label_smoothing: float
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """What mixes a training batch by mixup or CutMix, drawn once per batch, as the official code does.

    The result maps float images (N, C, H, W) and class indices (N,) to new images and targets (N, num_classes) of
    float32 that sum to 1, on the same device; its input stays as it was. In a batch of odd size the last image is
    not mixed, and its target is the smoothed one-hot vector, as all are when ``mixup`` and ``cutmix`` are 0.

    Args:
        augmentation: of which ``mixup``, ``cutmix``, ``mix_probability`` and ``switch_probability`` count.
        num_classes: number of classes.
        label_smoothing: share of the target that is spread evenly over all classes, in [0, 1).
    """
    if num_classes < 1:
        raise ValueError(f"num_classes must be 1 or more, got {num_classes}")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
    if augmentation.mixup == 0 and augmentation.cutmix == 0:
        return BatchMixer(None, num_classes, label_smoothing)
    mixup = Mixup(
        mixup_alpha=augmentation.mixup,
        cutmix_alpha=augmentation.cutmix,
        prob=augmentation.mix_probability,
        switch_prob=augmentation.switch_probability,
        mode="batch",
        label_smoothing=label_smoothing,
        num_classes=num_classes,
    )
    return BatchMixer(mixup, num_classes, label_smoothing)
