"""What timm knows of InternImage: names, released weights, and one function per name.

The file's name is timm's name for the family: ``timm.list_models(module="internimage")``.
"""

from __future__ import annotations

from typing import Any

from timm.models import (
    build_model_with_cfg,
    generate_default_cfgs,
    is_model,
    model_entrypoint,
    register_model,
    resolve_pretrained_cfg,
)
from torch import nn

from internimage.integrations.timm.network import CLASSIFIER, FIRST_CONV, TimmInternImage, our_names
from internimage.model.checkpoints.hub import locate
from internimage.model.variants import list_models, short_name, variant_config
from internimage.model.weights import WEIGHTS, Weights
from internimage.structures import Preprocess

__all__ = ["register"]


def _default_cfg(model: str, weights: Weights | None = None) -> dict[str, Any]:
    preprocess = Preprocess() if weights is None else Preprocess(weights.image_size)
    config = variant_config(model)
    stride = 16 if config.head == "clip" else 32
    cfg: dict[str, Any] = {
        "num_classes": 1000,
        "input_size": (3, preprocess.size, preprocess.size),
        "pool_size": (preprocess.size // stride,) * 2,
        "crop_pct": preprocess.crop_ratio,
        "interpolation": preprocess.interpolation,
        "mean": preprocess.mean,
        "std": preprocess.std,
        "first_conv": FIRST_CONV,
        "classifier": CLASSIFIER,
        "license": "mit",
    }
    if weights is None:
        return cfg
    return cfg | {
        "num_classes": weights.num_classes,
        "license": weights.licence.lower(),
        "hf_hub_id": weights.repository,
        "hf_hub_filename": weights.file,
        "custom_load": "hf",
        "description": f"trained on {weights.data}",
        "origin_url": f"https://github.com/{weights.repository}",
        "paper_ids": "arXiv:2211.05778" if config.core == "dcnv3" else "arXiv:2401.06197",
    }


_PUBLISHED: dict[str, Any] = {row.name: _default_cfg(row.model, row) for row in WEIGHTS.values()}
_UNPUBLISHED: dict[str, Any] = {
    model: _default_cfg(model) for model in list_models() if model not in {row.model for row in WEIGHTS.values()}
}
# Under this name timm finds them when a function of this file is registered.
default_cfgs = generate_default_cfgs(_PUBLISHED | _UNPUBLISHED)


def _create(variant: str, pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """What every entry point below does."""
    feature_cls = kwargs.pop("feature_cls", "getter")
    if feature_cls != "getter":
        # The network's own maps are channels-last; the other classes would hand them out as they are.
        raise ValueError(f"feature_cls must be 'getter' for InternImage, got {feature_cls!r}")
    if kwargs.get("features_only"):
        kwargs |= {"num_classes": 0, "keep_head": False}
    overlay = dict(kwargs.pop("pretrained_cfg_overlay", None) or {})
    if pretrained:
        overlay = _with_file(variant, kwargs.get("pretrained_cfg"), overlay, kwargs.get("cache_dir"))
    return build_model_with_cfg(
        TimmInternImage,
        variant,
        pretrained,
        pretrained_cfg_overlay=overlay,
        pretrained_filter_fn=our_names,
        model_cfg=variant_config(variant),
        feature_cfg={"out_indices": (0, 1, 2, 3), "feature_cls": "getter"},
        **kwargs,
    )


def _with_file(variant: str, pretrained_cfg: Any, overlay: dict[str, Any], cache_dir: Any) -> dict[str, Any]:
    """The overlay with released weights as a file found our way, and files read by our reader."""
    cfg = resolve_pretrained_cfg(variant, pretrained_cfg, overlay)
    row = WEIGHTS.get(f"{variant}.{cfg.tag}")
    elsewhere = cfg.state_dict or cfg.file or cfg.source
    if row is not None and (cfg.hf_hub_id, cfg.hf_hub_filename) == (row.repository, row.file) and not elsewhere:
        # With a folder of its own for downloads, timm fetches the same file itself.
        overlay = overlay if cache_dir else overlay | {"file": str(locate(row.name))}
    has_file = bool(overlay.get("file") or cfg.file)
    return {"custom_load": True, **overlay} if has_file else overlay


def register() -> None:
    """Make every name of `internimage.list_models` known to timm; a second call changes nothing.

    Importing the package has done it already.
    """
    for name in list_models():
        if is_model(name) and model_entrypoint(name).__module__ == __name__:
            continue
        globals()[name] = register_model(_entry_point(name))


def _entry_point(name: str) -> Any:
    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        return _create(name, pretrained, **kwargs)

    # timm takes a model's name from its function.
    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"{short_name(name).upper()}: see `TimmInternImage` for the arguments."
    return create
