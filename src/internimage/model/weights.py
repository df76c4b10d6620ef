"""THE table of published weights: what there is, where it comes from, what was published about it.

Source of every row: the model tables of github.com/OpenGVLab/InternImage (README.md, classification/README.md, and those
of detection and segmentation, 31c962d); of FlashInternImage's, README.md of github.com/OpenGVLab/DCNv4 (4b848f7).
Accuracies are the authors'; the licence is the one their model cards state (MIT), FlashInternImage's that of the code
beside it (MIT). ImageNet and iNaturalist have terms of their own: NOTICE says more.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from internimage.model.variants import full_name
from internimage.structures import Viewing

_REPOSITORY, _FLASH_REPOSITORY = "OpenGVLab/InternImage", "OpenGVLab/DCNv4"


@dataclass(frozen=True)
class Weights:
    """One published checkpoint.

    Args:
        name: ``<model>.<data>_<size>``, what `create_model` takes as ``pretrained``.
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
class ShippedWeights:
    """Weights of our own that come with the package: no network is needed to try them.

    Args:
        name: ``internimage_<variant>.<data>_<size>``.
        data: what they were trained on.
        image_size: height and width of its images in pixels.
        num_classes: its classes.
        top1: accuracy in percent on that set's test images, which were used for nothing else.
        stem_strides: of the architecture, which differs from the variant's in nothing else.
        licence: of the weights; NOTICE says what is known of the images'.
    """

    name: str
    data: str
    image_size: int
    num_classes: int
    top1: float
    stem_strides: tuple[int, int]
    licence: str = "MIT"

    @property
    def model(self) -> str:
        """The architecture, a name from `list_models`."""
        return self.name.split(".")[0]

    @property
    def path(self) -> Path:
        """Where the file lies; the model card is the ``.md`` of the same name beside it."""
        return Path(__file__).parent / "shipped" / f"{self.name}.safetensors"


@dataclass(frozen=True)
class DetectorWeights:
    """One published detector.

    Args:
        name: what `internimage.Detector` takes; also the name of its recipe, if there is one.
        file: its file in the hub repository ``repository``.
        data: what it was trained on, in order.
        box_ap: published box AP in percent on the last set's validation pictures at one size (VOC's 2007 test, and AP
            at IoU 0.5 there and on OpenImages); None for weights that others started from.
        mask_ap: published mask AP there, or None.
    """

    name: str
    file: str
    data: str
    box_ap: float | None
    mask_ap: float | None
    repository: str = _REPOSITORY
    licence: str = "MIT"

    @property
    def url(self) -> str:
        """Where a person downloads the file."""
        return f"https://huggingface.co/{self.repository}/resolve/main/{self.file}"


@dataclass(frozen=True)
class SegmenterWeights:
    """One published segmenter.

    Args:
        name: ``<head>_<model>_<data>_<crop>``, what `internimage.Segmenter` takes; ``<data>`` is what it was
            trained on last, and what before where it was published without that too.
        file: its file in the hub repository ``repository``.
        data: what it was trained on, in order; on Mapillary for the 19 classes of Cityscapes.
        crop: height and width in pixels of what it was trained on.
        viewing: how it was tested.
        miou: published mean intersection over union in percent on the last data set's validation images, or None.
        miou_multi_scale: the same, over several sizes and their mirror images.
    """

    name: str
    file: str
    data: str
    crop: tuple[int, int]
    viewing: Viewing
    miou: float | None
    miou_multi_scale: float | None
    repository: str = _REPOSITORY
    licence: str = "MIT"

    @property
    def url(self) -> str:
        """Where a person downloads the file."""
        return f"https://huggingface.co/{self.repository}/resolve/main/{self.file}"


def _row(short: str, tag: str, file: str, data: str, size: int, classes: int, top1: float | None, repo: str) -> Weights:
    model_repository = f"OpenGVLab/{repo}" if repo else None
    name, home = f"{full_name(short)}.{tag}", _home(short)
    return Weights(name, f"{file}.pth", data, size, classes, top1, model_repository, home)


def _segmenter(
    head: str, short: str, tag: str, file: str, data: str, viewing: Viewing, miou: tuple[float, float | None] | None
) -> SegmenterWeights:
    name, file = f"{head}_{full_name(short)}_{tag}", f"{head}_{full_name(short)}_{file}.pth"
    sides = [int(side) for side in tag.rpartition("_")[2].split("x")]
    single, multi = miou or (None, None)
    return SegmenterWeights(name, file, data, (sides[0], sides[-1]), viewing, single, multi, _home(short))


def _detector(kind: str, short: str, schedule: str, box_ap: float, mask_ap: float) -> DetectorWeights:
    name = f"{kind}_{full_name(short)}"
    file = f"{name}_fpn_{schedule}_coco.pth"
    return DetectorWeights(f"{name}_coco_{schedule}", file, "COCO", box_ap, mask_ap, _home(short))


def _dino(short: str, tag: str, file: str, data: str, box_ap: float | None) -> DetectorWeights:
    model = short if short.startswith("cb") else full_name(short)
    name, file = f"dino_{model}_{tag}", f"dino_4scale_{model}_{file}.pth"
    return DetectorWeights(name, file, data, box_ap, None, _home(short))


def _home(short: str) -> str:
    return _FLASH_REPOSITORY if short.startswith("flash_") else _REPOSITORY


def _slide(side: int) -> Viewing:
    return Viewing((1024, 2048), 32, (side, side), (512, 512))


_CB_H = "cbinternimage_h"
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
    _row("flash_t", "in1k_224",       "flash_intern_image_t_1k_224",     _IN1K,                 224, 1000,  83.6, ""),
    _row("flash_s", "in1k_224",       "flash_intern_image_s_1k_224",     _IN1K,                 224, 1000,  84.4, ""),
    _row("flash_b", "in1k_224",       "flash_intern_image_b_1k_224",     _IN1K,                 224, 1000,  84.9, ""),
    _row("flash_l", "in22k_in1k_384", "flash_internimage_l_22kto1k_384", f"{_IN22K}, {_IN1K}",  384, 1000,  88.1, ""),
    _row("flash_l", "in22k_384",      "flash_intern_image_l_22k_384",    _IN22K,                384, 21841, None, ""),
)
# Source: detection/configs/coco/README.md of the released code, 31c962d, for DCNv4 4b848f7.
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
    ("mask_rcnn", "flash_t", "1x", 48.0, 43.1),
    ("mask_rcnn", "flash_t", "3x", 49.5, 44.0),
    ("mask_rcnn", "flash_s", "1x", 49.2, 44.0),
    ("mask_rcnn", "flash_s", "3x", 50.5, 44.9),
    ("mask_rcnn", "flash_b", "1x", 50.1, 44.5),
    ("mask_rcnn", "flash_b", "3x", 50.6, 45.4),
    ("cascade",   "flash_l", "1x", 55.6, 48.2),
    ("cascade",   "flash_l", "3x", 56.7, 48.9),
)
_COCO, _O365 = "COCO", "Objects365"
# The composite's other files started from ``..._80classes``, VOC's from ``..._20classes``. Source: README.md of
# detection/ and of its configs/ in the released code, 31c962d; for DCNv4 README.md, 4b848f7.
_DINOS = (
    _dino("t",   "coco_1x",                "1x_coco",                   _COCO,                     53.9),
    _dino("l",   "coco_1x",                "1x_coco_layer_wise_lr",     _COCO,                     57.5),
    _dino("l",   "coco_1x_slow_backbone",  "1x_coco_0.1x_backbone_lr",  _COCO,                     57.6),
    _dino("h",   "objects365_coco",        "objects365_coco",           f"{_O365}, {_COCO}",       63.4),
    _dino("g",   "objects365_coco",        "objects365_coco",           f"{_O365}, {_COCO}",       64.2),
    _dino(_CB_H, "objects365_80classes",   "objects365_80classes",      _O365,                     None),
    _dino(_CB_H, "objects365_20classes",   "objects365_20classes",      _O365,                     None),
    _dino(_CB_H, "objects365_coco",        "objects365_coco",           f"{_O365}, {_COCO}",       64.5),
    _dino(_CB_H, "objects365_lvis",        "objects365_lvis",           f"{_O365}, LVIS v1",       62.3),
    _dino(_CB_H, "objects365_openimages",  "objects365_openimages",     f"{_O365}, OpenImages V6", 74.1),
    _dino(_CB_H, "objects365_voc0712",     "objects365_voc0712",        f"{_O365}, VOC 07+12",     94.0),
    _dino("flash_t", "coco_1x",            "1x_coco",                   _COCO,                     54.7),
    _dino("flash_s", "coco_1x",            "1x_coco",                   _COCO,                     55.3),
    _dino("flash_b", "coco_1x",            "1x_coco",                   _COCO,                     56.0),
    _dino("flash_l", "coco_1x",            "1x_coco",                   _COCO,                     58.8),
)
_ADE, _CITY, _VISTAS, _STUFF = "ADE20K", "Cityscapes", "Mapillary Vistas", "COCO-Stuff 164K"
_STUFF_ADE, _VISTAS_CITY, _STUFF_10K = f"{_STUFF}, {_ADE}", f"{_VISTAS}, {_CITY}", f"{_STUFF}, COCO-Stuff 10K"
_512, _640, _896 = (Viewing((side, 4 * side), 32) for side in (512, 640, 896))
_1024 = Viewing((1024, 2048))
# Source: segmentation/README.md and segmentation/configs of the released code, 31c962d. For Mask2Former on ADE20K the
# first README.md has 62.5. For DCNv4 its README.md, 4b848f7: S with Mask2Former has 52.2 in that of configs/ade20k.
_SEGMENTERS = (
    _segmenter("upernet",     "t",  "ade20k_512",                    "512_160k_ade20k",                    _ADE,                _512,                     (47.9, 48.1)),
    _segmenter("upernet",     "s",  "ade20k_512",                    "512_160k_ade20k",                    _ADE,                _512,                     (50.1, 50.9)),
    _segmenter("upernet",     "b",  "ade20k_512",                    "512_160k_ade20k",                    _ADE,                _512,                     (50.8, 51.3)),
    _segmenter("upernet",     "l",  "ade20k_640",                    "640_160k_ade20k",                    _ADE,                _640,                     (53.9, 54.1)),
    _segmenter("upernet",     "xl", "ade20k_640",                    "640_160k_ade20k",                    _ADE,                _640,                     (55.0, 55.3)),
    _segmenter("upernet",     "h",  "ade20k_896",                    "896_160k_ade20k",                    _ADE,                _896,                     (59.9, 60.3)),
    _segmenter("mask2former", "h",  "ade20k_896",                    "896_80k_cocostuff2ade20k",           _STUFF_ADE,          _896,                     (62.6, 62.9)),
    _segmenter("upernet",     "t",  "cityscapes_512x1024",           "512x1024_160k_cityscapes",           _CITY,               _1024,                    (82.58, 83.40)),
    _segmenter("upernet",     "s",  "cityscapes_512x1024",           "512x1024_160k_cityscapes",           _CITY,               _1024,                    (82.74, 83.45)),
    _segmenter("upernet",     "b",  "cityscapes_512x1024",           "512x1024_160k_cityscapes",           _CITY,               _1024,                    (83.18, 83.97)),
    _segmenter("upernet",     "l",  "cityscapes_512x1024",           "512x1024_160k_cityscapes",           _CITY,               _1024,                    (83.68, 84.41)),
    _segmenter("upernet",     "xl", "cityscapes_512x1024",           "512x1024_160k_cityscapes",           _CITY,               _1024,                    (83.62, 84.28)),
    _segmenter("upernet",     "l",  "mapillary2cityscapes_512x1024", "512x1024_160k_mapillary2cityscapes", _VISTAS_CITY,        _1024,                    (85.94, 86.22)),
    _segmenter("upernet",     "xl", "mapillary2cityscapes_512x1024", "512x1024_160k_mapillary2cityscapes", _VISTAS_CITY,        _1024,                    (86.20, 86.42)),
    _segmenter("segformer",   "l",  "cityscapes_512x1024",           "512x1024_160k_mapillary2cityscapes", _VISTAS_CITY,        _1024,                    (85.16, 85.67)),
    _segmenter("segformer",   "xl", "cityscapes_512x1024",           "512x1024_160k_mapillary2cityscapes", _VISTAS_CITY,        _1024,                    (85.41, 85.93)),
    _segmenter("mask2former", "h",  "cityscapes_1024",               "1024x1024_80k_mapillary2cityscapes", _VISTAS_CITY,        _slide(1024),             (86.37, 86.96)),
    _segmenter("upernet",     "l",  "mapillary_512x1024",            "512x1024_80k_mapillary",             _VISTAS,             _1024,                    None),
    _segmenter("upernet",     "xl", "mapillary_512x1024",            "512x1024_80k_mapillary",             _VISTAS,             _1024,                    None),
    _segmenter("segformer",   "l",  "mapillary_512x1024",            "512x1024_80k_mapillary",             _VISTAS,             _1024,                    None),
    _segmenter("segformer",   "xl", "mapillary_512x1024",            "512x1024_80k_mapillary",             _VISTAS,             _1024,                    None),
    _segmenter("mask2former", "h",  "mapillary_896",                 "896x896_80k_mapillary",              _VISTAS,             _slide(896),              None),
    _segmenter("mask2former", "h",  "coco_stuff164k_896",            "896_80k_cocostuff164k",              _STUFF,              _896,                     (52.6, 52.8)),
    _segmenter("mask2former", "h",  "coco_stuff10k_512",             "512_40k_cocostuff164k_to_10k",       _STUFF_10K,          _512,                     (59.2, 59.6)),
    _segmenter("mask2former", "h",  "pascal_context_59_480",         "480_40k_pascal_context_59",          "Pascal Context 59", Viewing((520, 4096), 32), (69.7, 70.3)),
    _segmenter("mask2former", "h",  "nyu_depth_v2_480",              "480_40k_nyu",                        "NYU Depth V2",      Viewing((480, 640), 32),  (67.1, 68.1)),
    _segmenter("upernet",     "flash_t", "ade20k_512",               "512_160k_ade20k",                    _ADE,                _512,                     (49.3, 50.3)),
    _segmenter("upernet",     "flash_s", "ade20k_512",               "512_160k_ade20k",                    _ADE,                _512,                     (50.6, 51.6)),
    _segmenter("upernet",     "flash_b", "ade20k_512",               "512_160k_ade20k",                    _ADE,                _512,                     (52.0, 52.6)),
    _segmenter("upernet",     "flash_l", "ade20k_640",               "640_160k_ade20k",                    _ADE,                _640,                     (55.6, 56.0)),
    _segmenter("mask2former", "flash_t", "ade20k_512",               "512_160k_ade20k_ss",                 _ADE,                _512,                     (51.2, None)),
    _segmenter("mask2former", "flash_s", "ade20k_640",               "640_160k_ade20k_ss",                 _ADE,                _640,                     (52.6, None)),
    _segmenter("mask2former", "flash_b", "ade20k_640",               "640_160k_ade20k_ss",                 _ADE,                _640,                     (53.4, None)),
    _segmenter("mask2former", "flash_l", "ade20k_640",               "640_160k_ade20k_ss",                 _ADE,                _640,                     (56.7, None)),
)
# fmt: on
DETECTORS: dict[str, DetectorWeights] = {row.name: row for row in (*(_detector(*each) for each in _DETECTORS), *_DINOS)}
SEGMENTERS: dict[str, SegmenterWeights] = {row.name: row for row in _SEGMENTERS}
WEIGHTS: dict[str, Weights] = {row.name: row for row in _ROWS}
# Trained here; each has a model card that says how.
SHIPPED: dict[str, ShippedWeights] = {
    row.name: row for row in (ShippedWeights("internimage_pico.cifar10_32", "CIFAR-10", 32, 10, 86.40, (1, 2)),)
}
# What predicts where nobody names weights.
DEFAULT_WEIGHTS = "internimage_pico.cifar10_32"


def default_weights(model: str) -> Weights | ShippedWeights:
    """The released or shipped weights that ``pretrained=True`` means for a name from `list_models`.

    >>> default_weights("internimage_l").name
    'internimage_l.in22k_in1k_384'
    """
    rows = [*WEIGHTS.values(), *SHIPPED.values()]
    for row in rows:
        if row.model == model:
            return row
    known = sorted({row.model for row in rows})
    raise ValueError(f"no released weights for {model!r}; there are some for {', '.join(known)}")
