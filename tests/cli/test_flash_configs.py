"""Recipes of the networks with DCNv4 hold the published values; one of each task is built, the others are slow."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from internimage import InternImageConfig
from internimage.cli.configs import settings_in, shipped_configs
from internimage.cli.training.arguments import complete
from internimage.cli.training.program import TrainingCLI
from internimage.data.detection.augment import DetectionAugmentation
from internimage.model.detection import DetectorConfig
from internimage.model.segmentation import SegmenterConfig
from internimage.model.weights import DETECTORS, SEGMENTERS, WEIGHTS
from internimage.training import param_groups

pytestmark = [
    pytest.mark.filterwarnings("ignore:LightningCLI's args parameter is intended:UserWarning"),
    pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:You passed .*16-mixed.* but AMP with fp16 is not supported on CPU:UserWarning"),
]
PATHS = {Path(name).name: path for name, path in shipped_configs().items() if "/flash/" in name}


@dataclass(frozen=True)
class Row:
    """What a released configuration says, where those of its task differ from one another."""

    drop_path: float
    lr: float
    decay: float
    pictures: int
    step: int
    recomputes: bool = True
    clip: float | None = None
    offsets: float = 1.0


# Source of all below: detection/configs/coco, segmentation/configs/ade20k and classification/configs of DCNv4, 4b848f7.
DETECTION = {
    "mask_rcnn_flash_internimage_t_coco_1x": Row(0.2, 1e-4, 1.0, 2, 16),
    "mask_rcnn_flash_internimage_t_coco_3x": Row(0.2, 1e-4, 1.0, 2, 16),
    "mask_rcnn_flash_internimage_s_coco_1x": Row(0.3, 1e-4, 1.0, 2, 16),
    "mask_rcnn_flash_internimage_s_coco_3x": Row(0.4, 2e-4, 1.0, 8, 64),
    "mask_rcnn_flash_internimage_b_coco_1x": Row(0.3, 1e-4, 1.0, 2, 16),
    "mask_rcnn_flash_internimage_b_coco_3x": Row(0.4, 2e-4, 0.9, 4, 64, offsets=0.01),
    "cascade_flash_internimage_l_coco_1x": Row(0.4, 1e-4, 0.94, 2, 16, recomputes=False),
    "cascade_flash_internimage_l_coco_3x": Row(0.4, 2e-4, 0.9, 4, 64, offsets=0.01),
}
SEGMENTATION = {
    "upernet_flash_internimage_t_ade20k_512": Row(0.2, 6e-5, 1.0, 2, 16),
    "upernet_flash_internimage_s_ade20k_512": Row(0.3, 6e-5, 1.0, 2, 16),
    "upernet_flash_internimage_b_ade20k_512": Row(0.3, 6e-5, 1.0, 2, 16, recomputes=False),
    "upernet_flash_internimage_l_ade20k_640": Row(0.4, 2e-5, 0.94, 2, 16, recomputes=False, clip=0.1),
    "mask2former_flash_internimage_t_ade20k_512": Row(0.2, 1e-4, 0.9, 2, 16, recomputes=False, clip=0.01),
    "mask2former_flash_internimage_s_ade20k_640": Row(0.3, 1e-4, 1.0, 2, 16, recomputes=False, clip=0.1),
    "mask2former_flash_internimage_b_ade20k_640": Row(0.4, 1e-4, 1.0, 2, 16, recomputes=False, clip=0.1),
    "mask2former_flash_internimage_l_ade20k_640": Row(0.5, 1e-4, 0.94, 2, 16, clip=0.1),
}
# Drop path.
CLASSIFICATION = {"t_in1k_224": 0.1, "s_in1k_224": 0.4, "b_in1k_224": 0.5, "l_in22k_in1k_384": 0.1}
BUILT = ("mask_rcnn_flash_internimage_b_coco_3x", "mask2former_flash_internimage_s_ade20k_640")


def model_and_data(name: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    settings = settings_in(str(PATHS[name]))
    return settings["model"]["init_args"], settings["data"]["init_args"], settings["trainer"]


def test_every_released_network_has_a_recipe_of_its_name() -> None:
    classifiers = {name.replace(".", "_") for name in WEIGHTS if name.startswith("flash") and ".in22k_384" not in name}
    assert {f"flash_internimage_{name}" for name in CLASSIFICATION} == classifiers
    # DINO's are beside the other DINOs.
    assert set(DETECTION) == {name for name in DETECTORS if "flash" in name and not name.startswith("dino")}
    assert set(SEGMENTATION) == {name for name in SEGMENTERS if "flash" in name}
    assert set(PATHS) == classifiers | DETECTION.keys() | SEGMENTATION.keys()


@pytest.mark.parametrize("name", [*DETECTION, *SEGMENTATION])
def test_the_published_values(name: str) -> None:
    row = (DETECTION | SEGMENTATION)[name]
    model, data, trainer = model_and_data(name)
    optimizer, letter = model["optimizer"], re.findall(r"flash_internimage_(.)_", name)[0]
    assert model["model"] == f"flash_internimage_{letter}"
    # L starts from ImageNet-22K at 384 pixels.
    assert model["pretrained"] == ("flash_internimage_l.in22k_384" if letter == "l" else True)
    recomputes = {"gradient_checkpointing": True} if row.recomputes else {}
    assert model["model_options"] == {"drop_path_rate": row.drop_path, **recomputes}
    found = [optimizer["lr"], optimizer.get("layer_decay", 1.0), optimizer.get("offset_lr_scale", 1.0)]
    assert (found, optimizer["weight_decay"]) == ([row.lr, row.decay, row.offsets], 0.05)
    assert (data["batch_size"], optimizer["lr_batch_size"]) == (row.pictures, row.step)
    assert trainer.get("gradient_clip_val") == row.clip
    # Batch normalisation is in the cascade's heads and in UPerNet.
    assert trainer.get("sync_batchnorm", False) == name.startswith(("cascade", "upernet"))
    head = " ".join(line for line in PATHS[name].read_text(encoding="utf-8").splitlines() if line.startswith("# "))
    numbers = [float(number) for number in re.findall(r"\d+\.\d+", head.split("Source")[0])]
    if detector := DETECTORS.get(name):
        assert numbers == [detector.box_ap, detector.mask_ap]
        assert optimizer["warmup_steps"] == 500
        assert optimizer["warmup_lr"] == pytest.approx(1e-3 * row.lr)
        schedule = (12, [8, 11], None) if name.endswith("1x") else (36, [27, 33], DetectionAugmentation.released_3x())
        crops = DetectionAugmentation(**data["augmentation"]) if "augmentation" in data else None
        assert (trainer["max_epochs"], optimizer["lr_falls"], crops) == schedule
        return
    segmenter = SEGMENTERS[name]
    published = [segmenter.miou, segmenter.miou_multi_scale]
    assert numbers == [value for value in published if value is not None]
    assert model.get("head", "upernet") == name.split("_")[0]
    assert (trainer["max_steps"], optimizer["warmup_steps"]) == (160_000, 1500)
    assert optimizer["warmup_lr"] == pytest.approx(1e-6 * row.lr)
    side = segmenter.crop[0]
    assert data["preprocess"] == {"frame": [side, 4 * side], "multiple": 32}
    assert data.get("augmentation", {"crop": [512, 512]}) == {"crop": [side, side]}


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_classifiers_train_as_their_sisters(name: str) -> None:
    """Of the same sizes, with DCNv3: the released configurations differ in the network alone."""
    (model, data, trainer), sister = model_and_data(f"flash_internimage_{name}"), f"internimage_{name}"
    theirs = settings_in(str(shipped_configs()[f"classification/{sister}"]))
    assert (model["model"], model["model_options"]["drop_path_rate"]) == (
        f"flash_internimage_{name[0]}",
        CLASSIFICATION[name],
    )
    same = theirs["model"]["init_args"]
    assert model["optimizer"] == same["optimizer"]
    assert model.get("pretrained") == (f"flash_{same['pretrained']}" if "pretrained" in same else None)
    assert {**data, "batch_size": 0} == {**theirs["data"]["init_args"], "batch_size": 0}
    assert trainer == theirs["trainer"]
    weights = WEIGHTS[f"flash_internimage_{name[0]}.{name[2:]}"]
    assert data["image_size"] == weights.image_size
    assert f"{weights.top1}% top-1 published" in PATHS[f"flash_internimage_{name}"].read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name", [name if name in BUILT else pytest.param(name, marks=pytest.mark.slow) for name in PATHS]
)
def test_a_recipe_builds(name: str, clothes: Path, tmp_path: Path) -> None:
    root = "scenes" if name in DETECTION or name in SEGMENTATION else str(clothes)
    given = ["--config", name, "--run", str(tmp_path / "run"), "--trainer.accelerator", "cpu"]
    given += ["--model.init_args.pretrained", "false", "--data.init_args.root", root]
    if name in SEGMENTATION:
        said = {"classes": "null", "ignored": "null", "reduce_zero": "false", "values": "null", "files": "null"}
        given += [part for key, value in said.items() for part in (f"--data.init_args.{key}", value)]
    with torch.device("meta"):
        cli = TrainingCLI("fit", complete("fit", given))
    network, letter = cli.model.network, re.findall(r"flash_internimage_(.)_", name)[0]
    if name in DETECTION:
        expected: Any = DetectorConfig.from_variant(f"flash_{letter}", num_classes=10)
        assert (network.config.stages, network.config.fpn_norm) == (expected.stages, True)
    elif name in SEGMENTATION:
        expected = SegmenterConfig.from_variant(f"flash_{letter}", num_classes=11, head=name.split("_")[0])
        assert (network.config.queries, network.config.encoder_feedforward) == (
            expected.queries,
            expected.encoder_feedforward,
        )
    else:
        assert network.config.core == InternImageConfig.from_variant(f"flash_{letter}").core == "dcnv4"
        return
    settings = cli.model.optimizer_settings
    rates = {"lr": settings.lr, "weight_decay": settings.weight_decay, "layer_decay": settings.layer_decay}
    groups = param_groups(
        network, **rates, depths=cli.model.depths, offset_lr_scale=settings.offset_lr_scale, dense=True
    )
    slowed = {
        key.split(".dcn.")[1].split(".")[0]
        for group in groups
        for key in group["names"]
        if ".stages.3.blocks.3.dcn." in key and group["lr"] < 0.1 * settings.lr
    }
    assert slowed == ({"offset_mask"} if settings.offset_lr_scale < 1 else set())
