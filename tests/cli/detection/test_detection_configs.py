"""Detection's recipes go through the real parser, build networks without memory, and hold the published values."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from internimage.cli.configs import shipped_configs
from internimage.cli.training.arguments import complete
from internimage.cli.training.program import TrainingCLI
from internimage.data.detection.augment import DetectionAugmentation
from internimage.model.detection import DetectorConfig
from internimage.model.weights import DETECTORS
from internimage.training import param_groups

pytestmark = [
    pytest.mark.filterwarnings("ignore:LightningCLI's args parameter is intended:UserWarning"),
    pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning"),
]
# The published ones are built below, those with DCNv4 in tests/cli/test_flash_configs.py, those in further folders in
# test_dino_configs.py.
NAMES = sorted(name for name in shipped_configs() if name.startswith("detection/") and name.count("/") == 1)
# Drop path of 1x and 3x, layer decay of 1x and 3x, learning rate of 1x and 3x, pictures a step of 1x and 3x.
# Source: detection/configs/coco of the released code, 31c962d.
PUBLISHED = {
    "t": ((0.2, 0.2), (1.0, 1.0), (1e-4, 1e-4), (16, 16)),
    "s": ((0.3, 0.3), (1.0, 1.0), (1e-4, 1e-4), (16, 16)),
    "b": ((0.4, 0.4), (1.0, 1.0), (1e-4, 1e-4), (16, 16)),
    "l": ((0.4, 0.4), (0.94, 0.9), (1e-4, 2e-4), (16, 64)),
    "xl": ((0.4, 0.6), (0.94, 0.9), (1e-4, 2e-4), (16, 64)),
}


def built(name: str, run: Path) -> TrainingCLI:
    given = ["--config", name, "--run", str(run), "--trainer.accelerator", "cpu", "--data.init_args.root", "scenes"]
    with torch.device("meta"):
        return TrainingCLI("fit", complete("fit", [*given, "--model.init_args.pretrained", "false"]))


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_builds(name: str, tmp_path: Path) -> None:
    cli = built(name, tmp_path / "run")
    settings = cli.model.optimizer_settings
    assert all(parameter.is_meta for parameter in cli.model.network.parameters())
    assert cli.model.network.config.num_classes == len(cli.datamodule.labels) == 10
    assert settings.warmup_lr < settings.lr
    assert max(settings.lr_falls, default=0) < cli.trainer.max_epochs
    assert not list((tmp_path / "run").iterdir()), "nothing is written before training begins"
    cli.keep_config()
    assert (tmp_path / "run" / "config.yaml").is_file()


@pytest.mark.parametrize("schedule", [0, 1], ids=["1x", "3x"])
@pytest.mark.parametrize("variant", PUBLISHED)
def test_a_published_recipe(variant: str, schedule: int, tmp_path: Path) -> None:
    drop_path, decay, lr, pictures = (each[schedule] for each in PUBLISHED[variant])
    kind = "cascade" if variant in ("l", "xl") else "mask_rcnn"
    cli = built(f"{kind}_internimage_{variant}_coco_{('1x', '3x')[schedule]}", tmp_path / "run")
    network, settings = cli.model.network, cli.model.optimizer_settings
    expected = DetectorConfig.from_variant(variant, num_classes=10)
    assert network.config.stages == expected.stages == (3 if kind == "cascade" else 1)
    assert network.config.backbone.drop_path_rate == drop_path
    assert network.config.backbone.layer_scale == 1.0
    assert (settings.lr, settings.layer_decay, settings.lr_batch_size) == (lr, decay, pictures)
    assert (settings.weight_decay, settings.warmup_steps) == (0.05, 500)
    assert settings.warmup_lr / settings.lr == pytest.approx(1e-3)
    assert (cli.trainer.max_epochs, settings.lr_falls) == ((12, (8, 11)), (36, (27, 33)))[schedule]
    assert cli.datamodule.batch_size == 2
    assert cli.datamodule.augmentation == (DetectionAugmentation(), DetectionAugmentation.released_3x())[schedule]
    rates = {"lr": settings.lr, "weight_decay": 0.05, "layer_decay": settings.layer_decay}
    groups = param_groups(network, **rates, depths=cli.model.depths, dense=True)
    slowest = min(group["lr"] for group in groups)
    assert slowest == pytest.approx(lr * decay ** (sum(cli.model.depths) + 1))


def test_released_detectors_have_the_names_of_their_recipes() -> None:
    recipes = {Path(name).name for name in shipped_configs() if "/coco/" in name and "/dino/" not in name}
    assert recipes == {name for name in DETECTORS if not name.startswith("dino_")}
    assert DETECTORS["mask_rcnn_internimage_t_coco_1x"].file == "mask_rcnn_internimage_t_fpn_1x_coco.pth"
    assert DETECTORS["cascade_internimage_xl_coco_3x"].url.endswith("/cascade_internimage_xl_fpn_3x_coco.pth")
