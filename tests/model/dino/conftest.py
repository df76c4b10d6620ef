"""Tiny DINOs, and the released one's outputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from internimage import InternImageConfig
from internimage.model.checkpoints.official.dino import dino_to_ours
from internimage.model.detection import Objects
from internimage.model.detection.dino import DinoConfig, InternImageDino
from internimage.structures import Placement

TINY = DinoConfig(
    InternImageConfig.stacked(8, 8, 1, 1, num_classes=0),
    num_classes=3,
    queries=12,
    encoder_layers=1,
    decoder_layers=2,
    channels=32,
    hidden_channels=48,
    heads=2,
    points=2,
    denoising_queries=6,
    detections=20,
)
# Of a 64 x 96 batch: the first picture fills it, the second was enlarged and is padded at both sides.
PLACES = [Placement((64, 96), (64, 96)), Placement.fit((24, 40), (48, 80))]
TRUTHS = [
    Objects(torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40]]), torch.tensor([2, 0])),
    Objects(torch.tensor([[8.0, 16, 40, 32]]), torch.tensor([1])),
]


@dataclass
class Official:
    """A golden file: our detector with its weights, its weights by their names, what came out, and where."""

    detector: InternImageDino
    state: dict[str, Tensor]
    tensors: dict[str, Tensor]
    placements: list[Placement]


@pytest.fixture(scope="session", params=["dino", "cbdino"])
def official(request: pytest.FixtureRequest, golden: Path) -> Official:
    with safe_open(golden / f"detection/{request.param}.safetensors", framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a dict
        metadata = file.metadata()
    state = {
        key.removeprefix("state_dict."): tensors.pop(key).float()
        for key in list(tensors)
        if key.startswith("state_dict.")
    }
    detector = InternImageDino(config_of(json.loads(metadata["config"])))
    detector.load_state_dict(dino_to_ours(state).state)
    placements = [
        Placement(tuple(meta["img_shape"][:2]), tuple(meta["ori_shape"][:2]), tuple(meta["scale_factor"][:2]))
        for meta in json.loads(metadata["img_metas"])
    ]
    return Official(detector.eval(), state, tensors, placements)


def config_of(theirs: dict[str, Any]) -> DinoConfig:
    """Their tiny networks' settings; the files' own converter is for the released ones."""
    arguments = {
        key: value for key, value in theirs["backbone"].items() if key not in ("type", "init_cfg", "out_indices")
    }
    head, is_composite = theirs["bbox_head"], isinstance(theirs["neck"], list)
    layers = head["transformer"]
    return DinoConfig(
        InternImageConfig.from_official(arguments | {"num_classes": 0}),
        num_classes=head["num_classes"],
        composite=is_composite,
        queries=head["num_query"],
        encoder_layers=layers["encoder"]["num_layers"],
        decoder_layers=layers["decoder"]["num_layers"],
        channels=(theirs["neck"][0] if is_composite else theirs["neck"])["out_channels"],
        hidden_channels=layers["encoder"]["transformerlayers"]["feedforward_channels"],
        detections=theirs["test_cfg"]["max_per_img"],
    )


@pytest.fixture
def detector() -> Callable[..., InternImageDino]:
    """A tiny one, in training mode, whose zeros are stirred so that layers look and say different things."""

    def build(**settings: Any) -> InternImageDino:
        torch.manual_seed(0)
        model = InternImageDino(replace(TINY, **settings))
        with torch.no_grad():
            for weight in model.parameters():
                if not weight.any():
                    weight.normal_(std=0.1)
        return model

    return build


@pytest.fixture
def images() -> Tensor:
    torch.manual_seed(1)
    image = torch.randn(2, 3, 64, 96)
    image[1, :, 48:], image[1, :, :, 80:] = 0, 0
    return image
