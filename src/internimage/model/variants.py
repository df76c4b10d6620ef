"""THE table of architectures: the paper's seven, and small ones of ours for laptops."""

from __future__ import annotations

from typing import Any

from internimage.model.config import InternImageConfig

PREFIX = "internimage_"

# C1, C' (channels per group), L1 = L2 = L4, L3. G alone leaves the pattern: its depths are given in full.
_STACKED: dict[str, tuple[int, int, int, int]] = {
    # Ours, after the paper's stacking rules; not in the paper, no released weights.
    "femto": (24, 24, 1, 2),
    "pico": (32, 16, 1, 3),
    "nano": (32, 16, 3, 9),
    # Table 1, arXiv:2211.05778; H and G from the released configurations (classification/configs, 31c962d).
    "t": (64, 16, 4, 18),
    "s": (80, 16, 4, 21),
    "b": (112, 16, 4, 21),
    "l": (160, 16, 5, 22),
    "xl": (192, 16, 5, 24),
    "h": (320, 32, 6, 32),
    "g": (512, 32, 2, 48),
}

_LARGE = {"center_feature_scale": True, "dw_kernel_size": 5, "head": "clip"}
_EXTRAS: dict[str, dict[str, Any]] = {
    "s": {"post_norm": True, "layer_scale": 1e-5},
    "b": {"post_norm": True, "layer_scale": 1e-5},
    "l": {"post_norm": True, "layer_scale": 1e-5, "offset_scale": 2.0},
    "xl": {"post_norm": True, "layer_scale": 1e-5, "offset_scale": 2.0},
    "h": {"res_post_norm": True, "level2_post_norm_blocks": tuple(range(5, 32, 6)), **_LARGE},
    "g": {"post_norm": True, "level2_post_norm_blocks": tuple(range(5, 48, 6)), "depths": (2, 2, 48, 4), **_LARGE},
}
# Ours: sizes that train on two cores; everything else is a published architecture.
OURS = frozenset({"femto", "pico", "nano"})


def list_models() -> list[str]:
    """Names that `create_model` takes, small to large.

    >>> list_models()[3:5]
    ['internimage_t', 'internimage_s']
    """
    return [PREFIX + name for name in _STACKED]


def variant_config(name: str) -> InternImageConfig:
    """The architecture of a name from `list_models`, with or without the prefix ``internimage_``."""
    short = name.lower().removeprefix(PREFIX)
    if short not in _STACKED:
        raise ValueError(f"unknown model {name!r}; choose from {', '.join(list_models())}")
    extras = dict(_EXTRAS.get(short, {}))
    depths = extras.pop("depths", None)
    config = InternImageConfig.stacked(*_STACKED[short], **extras)
    return config if depths is None else InternImageConfig.from_dict(config.to_dict() | {"depths": depths})


def describe_variant(config: InternImageConfig) -> str:
    """The name of the variant with this architecture in words, or its numbers if it has none."""
    depths, groups = ("-".join(map(str, values)) for values in (config.depths, config.groups))
    numbers = f"{config.channels} channels, depths {depths}, groups {groups}"
    for short in _STACKED:
        known = variant_config(short)
        if (known.channels, known.depths, known.groups) == (config.channels, config.depths, config.groups):
            return f"InternImage-{short.upper() if short not in OURS else short} ({numbers})"
    return f"an InternImage of {numbers}"
