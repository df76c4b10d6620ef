"""``python -m benchmarks.peer``: a ConvNeXt of timm's, trained as the weights that ship here were.

Same images, recipe, moving average and number of parameters; maps of the same sizes (16, 8, 4 and 2 pixels a side).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import timm
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import Callback
from torch import Tensor, nn

from internimage.cli.configs import settings_in
from internimage.cli.training.arguments import complete
from internimage.cli.training.program import TrainingCLI
from internimage.cli.training.run_folder import CONFIG_FILE
from internimage.structures import LabelMap, Preprocess
from internimage.tasks import ClassificationTask
from internimage.tasks.base import OptimizerSettings
from internimage.tasks.callbacks import Report
from internimage.tasks.checkpoints import BEST, ExportWeights
from internimage.visualization.curves import METRICS_FILE, read_rows

DEPTHS, WIDTHS = (1, 1, 4, 2), (32, 64, 128, 256)


def build_peer(num_classes: int = 10, drop_path_rate: float = 0.0) -> nn.Module:
    """ConvNeXt for 32 pixels: 1.86 million parameters with ten classes, where internimage_pico has 1.92.

    No layer scale, for ours has none either and its start at 1e-6 is meant for longer trainings.
    """
    options: dict[str, Any] = {"depths": DEPTHS, "dims": WIDTHS, "conv_mlp": False, "ls_init_value": None}
    network = timm.create_model("convnext_atto", num_classes=num_classes, drop_path_rate=drop_path_rate, **options)
    # With patch_size=2, timm's first stage would halve the map as well.
    stem = nn.Conv2d(3, WIDTHS[0], kernel_size=2, stride=2)
    nn.init.trunc_normal_(stem.weight, std=0.02)
    nn.init.zeros_(cast(Tensor, stem.bias))
    cast(Any, network).stem[0] = stem
    return network.to(memory_format=cast(Any, torch.channels_last))


def load_peer(run: Path, num_classes: int = 10) -> tuple[nn.Module, str]:
    """The best epoch's moving average, ready to classify, and in words how long it was trained."""
    saved = torch.load(run / "checkpoints" / BEST, map_location="cpu", weights_only=True)
    prefix, network = "network.", build_peer(num_classes)
    weights = {key: value for key, value in saved["state_dict"].items() if key.startswith(prefix)}
    network.load_state_dict({key.removeprefix(prefix): value for key, value in weights.items()})
    rows, settings = read_rows(run / METRICS_FILE), settings_in(run / CONFIG_FILE)
    done = f"{len(rows)} of {settings['trainer']['max_epochs']} epochs"
    return network.eval(), f"{done}, the best on the validation images is {saved['epoch'] + 1}"


class PeerTask(ClassificationTask):
    """`ClassificationTask` around `build_peer`; of ``model_options`` it takes ``drop_path_rate``."""

    def __init__(
        self,
        labels: LabelMap | None = None,
        preprocess: Preprocess | None = None,
        model: str = "internimage_pico",
        pretrained: bool | str = False,
        model_options: dict[str, Any] | None = None,
        optimizer: OptimizerSettings | None = None,
    ) -> None:
        super().__init__(labels, preprocess, model, pretrained, model_options, optimizer)
        rate = (model_options or {}).get("drop_path_rate", 0.0)
        self.network: Any = build_peer(len(self.labels), rate)
        self.depths = DEPTHS

    def forward(self, image_NCHW: Tensor) -> Tensor:
        """Class scores, (N, C)."""
        return self.network(image_NCHW.contiguous(memory_format=torch.channels_last))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Our card describes our networks only."""


class PeerCLI(TrainingCLI):
    """Without the weight file and the page, which are for our own networks."""

    def _callbacks(self) -> list[Callback]:
        return [each for each in super()._callbacks() if not isinstance(each, ExportWeights | Report)]


def main(arguments: Sequence[str]) -> int:
    """Train; `load_peer` takes what comes out."""
    parser = ArgumentParser(prog="python -m benchmarks.peer", description=__doc__)
    parser.add_argument("--root", type=str, required=True, help="CIFAR-10: train, val and test, a folder per class")
    parser.add_argument("--run", type=str, default="runs/peer", help="the run's folder; a training in it goes on")
    parser.add_argument("--epochs", type=int, default=36, help="of the training")
    options = parser.parse_args(list(arguments))
    given = ["--config", "cifar10", "--model", "benchmarks.peer.PeerTask", "--data.init_args.root", options.root]
    given += ["--run", options.run, "--auto_resume", "--trainer.max_epochs", str(options.epochs)]
    cli = PeerCLI("fit", complete("fit", given))
    state = None if cli.state is None else str(cli.state)
    cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=state, weights_only=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
