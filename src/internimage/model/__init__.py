"""Networks in pure torch: configuration, layers, backbone, heads, weights and their files."""

from internimage.model.backbone import InternImage
from internimage.model.checkpoints.files import Card, Checkpoint, read_checkpoint, save_checkpoint
from internimage.model.checkpoints.loading import LoadReport, infer_config, load_checkpoint
from internimage.model.classifier import InternImageClassifier
from internimage.model.config import InternImageConfig
from internimage.model.deform import DCNv3
from internimage.model.deform_v4 import DCNv4
from internimage.model.factory import create_model
from internimage.model.variants import list_models
from internimage.model.weights import WEIGHTS, Weights

__all__ = [
    "WEIGHTS",
    "Card",
    "Checkpoint",
    "DCNv3",
    "DCNv4",
    "InternImage",
    "InternImageClassifier",
    "InternImageConfig",
    "LoadReport",
    "Weights",
    "create_model",
    "infer_config",
    "list_models",
    "load_checkpoint",
    "read_checkpoint",
    "save_checkpoint",
]
