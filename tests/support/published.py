"""Folders as OpenGVLab publishes them on the hub: configuration, image processor and weights under their names."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from internimage import InternImageClassifier, InternImageConfig
from internimage.model import WEIGHTS, Weights
from internimage.model.checkpoints.convert import to_huggingface
from internimage.model.variants import variant_config

PUBLISHED: dict[str, Weights] = {row.name: row for row in WEIGHTS.values() if row.model_repository is not None}
_CODE = "modeling_internimage.InternImage"


def shrunk(row: Weights, num_classes: int | None = None) -> InternImageConfig:
    """The released network's form, so small that a test can run it."""
    config = variant_config(row.model)
    blocks = (0, 2) if config.level2_post_norm_blocks else ()
    classes = row.num_classes if num_classes is None else num_classes
    sizes = {"channels": 16, "depths": (1, 1, 3, 1), "groups": (1, 2, 4, 8), "num_classes": classes}
    return replace(config, **sizes, level2_post_norm_blocks=blocks)


def network_of(config: InternImageConfig) -> InternImageClassifier:
    """The same network each time, without silent branches: no weight is the zero that training starts from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = InternImageClassifier(config).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean = 0.1 * torch.randn(module.num_features)
    return network


def write_published(
    folder: Path, network: InternImageClassifier, *, image_size: int = 64, pickled: bool = False
) -> Path:
    """The files of a published repository with this network's weights."""
    folder.mkdir(parents=True, exist_ok=True)
    config = network.config.to_official() | {
        "architectures": ["InternImageModel"],
        "auto_map": {
            "AutoConfig": "configuration_internimage.InternImageConfig",
            "AutoModel": f"{_CODE}Model",
            "AutoModelForImageClassification": f"{_CODE}ModelForImageClassification",
        },
        "model_type": "internimage",
        "torch_dtype": "float32",
        "transformers_version": "4.37.2",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    processor = {
        "crop_size": image_size,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "resample": 3,
        "size": image_size,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2))
    state = {key: tensor.contiguous() for key, tensor in to_huggingface(network.state_dict()).items()}
    if pickled:
        torch.save(state, folder / "pytorch_model.bin")
    else:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
