"""Segmentation's recipes go through the real parser, build networks without memory, and hold the published values."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from internimage.cli.configs import settings_in, shipped_configs
from internimage.cli.training.arguments import complete
from internimage.cli.training.program import TrainingCLI
from internimage.data.segmentation.augment import SegmentationAugmentation
from internimage.model.segmentation import SegmenterConfig
from internimage.model.weights import SEGMENTERS, WEIGHTS, default_weights
from internimage.structures import Viewing
from internimage.training import param_groups

pytestmark = [
    pytest.mark.filterwarnings("ignore:LightningCLI's args parameter is intended:UserWarning"),
    pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning"),
]
PATHS = {Path(name).name: path for name, path in shipped_configs().items() if name.startswith("segmentation/")}
OWN = ["camvid", "finetune_segmenter", "nuclei", "scenes"]
# Its configuration was released, its weights were not.
G = "upernet_internimage_g_ade20k_896"


@dataclass(frozen=True)
class Row:
    """What a released configuration says; ``start`` is a segmenter where it does not begin with its backbone alone."""

    lr: float
    gpus: int
    pictures: int
    steps: int
    clip: float | None
    start: str | None = None
    channels: int | None = None
    scale: tuple[float, float] = (0.5, 2.0)
    base: tuple[int, int] | None = None


# Source of all below: segmentation/configs of the released code, 31c962d.
# Of a backbone: drop path, layer decay, and the weights it starts from.
BACKBONES = {
    "t": (0.2, 1.0, "internimage_t.in1k_224"),
    "s": (0.3, 1.0, "internimage_s.in1k_224"),
    "b": (0.4, 1.0, "internimage_b.in1k_224"),
    "l": (0.4, 0.94, "internimage_l.in22k_384"),
    "xl": (0.4, 0.94, "internimage_xl.in22k_384"),
    "h": (0.5, 0.95, "internimage_h.in22k_384"),
    "g": (0.5, 0.95, "internimage_g.in22k_384"),
}
SMALL, LARGE = Row(6e-5, 8, 2, 160_000, None), Row(2e-5, 8, 2, 160_000, 0.1)
HUGE, VISTAS = Row(2e-5, 16, 1, 160_000, 0.1), Row(2e-5, 8, 2, 80_000, 0.1, scale=(0.5, 1.0))
# A UPerNet for Cityscapes starts from a SegFormer for Mapillary Vistas there, too.
VISTAS_L = replace(LARGE, start="segformer_internimage_l_mapillary_512x1024")
VISTAS_XL = replace(LARGE, start="segformer_internimage_xl_mapillary_512x1024")
STUFF = "mask2former_internimage_h_coco_stuff164k_896"
PUBLISHED = {
    "upernet_internimage_t_ade20k_512": SMALL,
    "upernet_internimage_s_ade20k_512": SMALL,
    "upernet_internimage_b_ade20k_512": SMALL,
    "upernet_internimage_l_ade20k_640": LARGE,
    "upernet_internimage_xl_ade20k_640": LARGE,
    "upernet_internimage_h_ade20k_896": HUGE,
    G: HUGE,
    "mask2former_internimage_h_ade20k_896": Row(1e-5, 16, 1, 80_000, 0.1, STUFF, 1024),
    "upernet_internimage_t_cityscapes_512x1024": SMALL,
    "upernet_internimage_s_cityscapes_512x1024": SMALL,
    "upernet_internimage_b_cityscapes_512x1024": SMALL,
    "upernet_internimage_l_cityscapes_512x1024": LARGE,
    "upernet_internimage_xl_cityscapes_512x1024": LARGE,
    "upernet_internimage_l_mapillary2cityscapes_512x1024": VISTAS_L,
    "upernet_internimage_xl_mapillary2cityscapes_512x1024": VISTAS_XL,
    "segformer_internimage_l_cityscapes_512x1024": VISTAS_L,
    "segformer_internimage_xl_cityscapes_512x1024": VISTAS_XL,
    "mask2former_internimage_h_cityscapes_1024": Row(
        1e-5, 8, 2, 80_000, 0.1, "mask2former_internimage_h_mapillary_896"
    ),
    "upernet_internimage_l_mapillary_512x1024": VISTAS,
    "upernet_internimage_xl_mapillary_512x1024": VISTAS,
    "segformer_internimage_l_mapillary_512x1024": VISTAS,
    "segformer_internimage_xl_mapillary_512x1024": VISTAS,
    # Alone among those for Mapillary Vistas it enlarges pictures, too.
    "mask2former_internimage_h_mapillary_896": Row(2e-5, 16, 2, 80_000, 0.1),
    STUFF: Row(2e-5, 16, 1, 80_000, None, channels=1024),
    "mask2former_internimage_h_coco_stuff10k_512": Row(1e-5, 16, 1, 40_000, None, STUFF, 1024),
    "mask2former_internimage_h_pascal_context_59_480": Row(2e-5, 16, 1, 40_000, None, base=(520, 520)),
    "mask2former_internimage_h_nyu_depth_v2_480": Row(2e-5, 16, 1, 40_000, None, base=(512, 2048)),
}


def built(name: str, run: Path) -> TrainingCLI:
    given = ["--config", name, "--run", str(run), "--trainer.accelerator", "cpu", "--data.init_args.root", "scenes"]
    # What is said of label maps, which the scenes have none of; test_recipes_find_their_sets.py has some.
    said = {"classes": "null", "ignored": "null", "reduce_zero": "false", "values": "null", "files": "null"}
    given += [part for key, value in said.items() for part in (f"--data.init_args.{key}", value)]
    with torch.device("meta"):
        return TrainingCLI("fit", complete("fit", [*given, "--model.init_args.pretrained", "false"]))


def parts(name: str) -> tuple[str, str]:
    """Head and variant."""
    head, _, rest = name.partition("_internimage_")
    return head, rest.split("_")[0]


def test_every_released_segmenter_has_a_recipe_of_its_name() -> None:
    flash = {name for name in SEGMENTERS if "_flash_" in name}
    # tests/cli/test_flash_configs.py looks into these.
    assert len(flash) == 8
    assert set(PUBLISHED) == {*SEGMENTERS, G} - flash
    assert set(PATHS) == {*PUBLISHED, *OWN, *flash}


@pytest.mark.parametrize("name", OWN)
def test_a_recipe_builds(name: str, tmp_path: Path) -> None:
    # Some are called as a detector's recipe is.
    cli = built(f"segmentation/{name}", tmp_path / "run")
    settings = cli.model.optimizer_settings
    assert all(parameter.is_meta for parameter in cli.model.network.parameters())
    assert cli.model.network.config.num_classes == len(cli.datamodule.labels) == len(cli.model.palette) == 11
    assert settings.warmup_lr < settings.lr
    assert settings.lr_power == 1.0
    assert not list((tmp_path / "run").iterdir()), "nothing is written before training begins"
    cli.keep_config()
    assert (tmp_path / "run" / "config.yaml").is_file()


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_recipe(name: str, tmp_path: Path) -> None:
    row, (head, variant) = PUBLISHED[name], parts(name)
    drop_path, decay, _ = BACKBONES[variant]
    cli = built(name, tmp_path / "run")
    network, settings, data = cli.model.network, cli.model.optimizer_settings, cli.datamodule

    expected = SegmenterConfig.from_variant(variant, num_classes=11, head=head, channels=row.channels)
    backbone = replace(expected.backbone, drop_path_rate=drop_path, gradient_checkpointing=variant == "g")
    assert network.config == replace(expected, backbone=backbone)
    assert all(parameter.is_meta for parameter in network.parameters())

    assert (settings.lr, settings.layer_decay, settings.lr_batch_size) == (row.lr, decay, row.gpus * row.pictures)
    assert (settings.weight_decay, settings.betas, settings.offset_lr_scale) == (0.05, (0.9, 0.999), 1.0)
    assert (settings.warmup_steps, settings.min_lr, settings.lr_power) == (1500, 0.0, 1.0)
    assert settings.warmup_lr / settings.lr == pytest.approx(1e-6)
    rates = {"lr": row.lr, "weight_decay": 0.05, "layer_decay": decay}
    groups = param_groups(network, **rates, depths=cli.model.depths, dense=True)
    assert min(group["lr"] for group in groups) == pytest.approx(row.lr * decay ** (sum(cli.model.depths) + 1))

    assert (cli.trainer.max_steps, cli.trainer.max_epochs) == (row.steps, -1)
    assert cli.trainer.gradient_clip_val == row.clip
    # Mask2Former normalises within a picture, so that devices need not agree.
    has_batch_norm = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
    assert cli.config["trainer"]["sync_batchnorm"] == has_batch_norm == (head != "mask2former")

    weights = SEGMENTERS.get(name)
    crop, viewing = (weights.crop, weights.viewing) if weights else ((896, 896), Viewing((896, 3584), 32))
    assert data.preprocess == viewing
    assert data.augmentation == SegmentationAugmentation(row.scale, crop, row.base)
    assert data.batch_size == row.pictures


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_recipe_names_its_source_its_precision_and_its_start(name: str) -> None:
    head = [line for line in PATHS[name].read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
    source = re.search(r"segmentation/configs/\w+/(\w+)\.py", " ".join(head))
    assert source is not None
    measured = [float(number) for number in re.findall(r"\d+\.\d+", head[0])]
    if (weights := SEGMENTERS.get(name)) is None:
        assert (source[1], measured) == ("upernet_internimage_g_896_160k_ade20k", [])
    else:
        # For tests at one size; its sister, which ends in ms, trains alike.
        assert source[1].removesuffix("_ss") == weights.file.removesuffix(".pth")
        assert measured == [value for value in (weights.miou, weights.miou_multi_scale) if value is not None]
    start, variant = settings_in(str(PATHS[name]))["model"]["init_args"]["pretrained"], parts(name)[1]
    begins = default_weights(f"internimage_{variant}").name if start is True else start
    assert begins == (PUBLISHED[name].start or BACKBONES[variant][2])
    assert begins in {*WEIGHTS, *SEGMENTERS}
