"""THE table of published weights: what there is, where it comes from, what was published about it.

Source of every row: the model tables of github.com/OpenGVLab/InternImage (README.md and classification/README.md,
31c962d). Accuracies are the authors'; the licence is the one their model cards state (MIT). ImageNet and
iNaturalist have terms of their own: NOTICE says more.
"""

from __future__ import annotations

from dataclasses import dataclass

from internimage.model.variants import PREFIX

_REPOSITORY = "OpenGVLab/InternImage"


@dataclass(frozen=True)
class Weights:
    """One published checkpoint.

    Args:
        name: ``internimage_<variant>.<data>_<size>``, what `create_model` takes as ``pretrained``.
        file: its file in the hub repository ``repository``.
        data: what it was trained on, in order.
        image_size: height and width of its images in pixels.
        num_classes: its classes.
        top1: published top-1 accuracy in percent on the last data set's validation images, or None where there is none
            or this network does not reach it.
        model_repository: the same weights as a hub model of their own, or None.
    """

    name: str
    file: str
    data: str
    image_size: int
    num_classes: int
    top1: float | None
    model_repository: str | None = None
    repository: str = _REPOSITORY
    licence: str = "MIT"

    @property
    def model(self) -> str:
        """The architecture, a name from `list_models`."""
        return self.name.split(".")[0]

    @property
    def url(self) -> str:
        """Where a person downloads the file."""
        return f"https://huggingface.co/{self.repository}/resolve/main/{self.file}"


@dataclass(frozen=True)
class DetectorWeights:
    """One published detector, trained on COCO's 80 classes.

    Args:
        name: what `internimage.Detector` takes; also the name of its recipe.
        file: its file in the hub repository ``repository``.
        box_ap: published box AP in percent on COCO val2017.
        mask_ap: published mask AP there.
    """

    name: str
    file: str
    box_ap: float
    mask_ap: float
    repository: str = _REPOSITORY
    licence: str = "MIT"

    @property
    def url(self) -> str:
        """Where a person downloads the file."""
        return f"https://huggingface.co/{self.repository}/resolve/main/{self.file}"


def _row(short: str, tag: str, file: str, data: str, size: int, classes: int, top1: float | None, repo: str) -> Weights:
    model_repository = f"OpenGVLab/{repo}" if repo else None
    return Weights(f"{PREFIX}{short}.{tag}", f"{file}.pth", data, size, classes, top1, model_repository)


_IN1K, _IN22K, _JOINT = "ImageNet-1K", "ImageNet-22K", "joint 427M images, ImageNet-22K"

# fmt: off
# The first row of a variant is what pretrained=True takes. No accuracy for iNaturalist: the published one was reached
# with a branch for the date and place of each image (intern_image_meta_former.py), which this network does not have.
_ROWS = (
    _row("t",  "in1k_224",       "internimage_t_1k_224",           _IN1K,                      224, 1000,  83.5, "internimage_t_1k_224"),
    _row("s",  "in1k_224",       "internimage_s_1k_224",           _IN1K,                      224, 1000,  84.2, "internimage_s_1k_224"),
    _row("b",  "in1k_224",       "internimage_b_1k_224",           _IN1K,                      224, 1000,  84.9, "internimage_b_1k_224"),
    _row("l",  "in22k_in1k_384", "internimage_l_22kto1k_384",      f"{_IN22K}, {_IN1K}",       384, 1000,  87.7, "internimage_l_22kto1k_384"),
    _row("l",  "in22k_384",      "internimage_l_22k_192to384",     _IN22K,                     384, 21841, None, "internimage_l_22k_384"),
    _row("xl", "in22k_in1k_384", "internimage_xl_22kto1k_384",     f"{_IN22K}, {_IN1K}",       384, 1000,  88.0, "internimage_xl_22kto1k_384"),
    _row("xl", "in22k_384",      "internimage_xl_22k_192to384",    _IN22K,                     384, 21841, None, "internimage_xl_22k_384"),
    _row("h",  "in22k_in1k_640", "internimage_h_22kto1k_640",      f"{_JOINT}, {_IN1K}",       640, 1000,  89.6, "internimage_h_22kto1k_640"),
    _row("h",  "in22k_384",      "internimage_h_jointto22k_384",   _JOINT,                     384, 21841, None, "internimage_h_jointto22k_384"),
    _row("h",  "in22k_inat18_384", "internimage_h_22ktoinat18_384", f"{_JOINT}, iNaturalist 2018", 384, 8142, None, ""),
    _row("g",  "in22k_in1k_512", "internimage_g_22kto1k_512",      f"{_JOINT}, {_IN1K}",       512, 1000,  90.1, "internimage_g_22kto1k_512"),
    _row("g",  "in22k_384",      "internimage_g_pretrainto22k_384", _JOINT,                    384, 21841, None, "internimage_g_jointto22k_384"),
)
# Source: detection/configs/coco/README.md of the released code, 31c962d.
_DETECTORS = (
    ("mask_rcnn", "t",  "1x", 47.2, 42.5),
    ("mask_rcnn", "t",  "3x", 49.1, 43.7),
    ("mask_rcnn", "s",  "1x", 47.8, 43.3),
    ("mask_rcnn", "s",  "3x", 49.7, 44.5),
    ("mask_rcnn", "b",  "1x", 48.8, 44.0),
    ("mask_rcnn", "b",  "3x", 50.3, 44.8),
    ("cascade",   "l",  "1x", 54.9, 47.7),
    ("cascade",   "l",  "3x", 56.1, 48.5),
    ("cascade",   "xl", "1x", 55.3, 48.1),
    ("cascade",   "xl", "3x", 56.2, 48.8),
)
# fmt: on
DETECTORS: dict[str, DetectorWeights] = {
    f"{kind}_{PREFIX}{short}_coco_{schedule}": DetectorWeights(
        f"{kind}_{PREFIX}{short}_coco_{schedule}", f"{kind}_{PREFIX}{short}_fpn_{schedule}_coco.pth", box, mask
    )
    for kind, short, schedule, box, mask in _DETECTORS
}
WEIGHTS: dict[str, Weights] = {row.name: row for row in _ROWS}


def default_weights(model: str) -> Weights:
    """The released weights that ``pretrained=True`` means for a name from `list_models`.

    >>> default_weights("internimage_l").name
    'internimage_l.in22k_in1k_384'
    """
    for row in WEIGHTS.values():
        if row.model == model:
            return row
    known = sorted({row.model for row in WEIGHTS.values()})
    raise ValueError(f"no released weights for {model!r}; there are some for {', '.join(known)}")
