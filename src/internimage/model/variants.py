"""THE table of architectures: the paper's seven, small ones of ours for laptops, and the four with DCNv4."""

from __future__ import annotations

from typing import Any

from internimage.model.config import InternImageConfig

PREFIX = "internimage_"
_FLASH = "flash_"

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
    # FlashInternImage, arXiv:2401.06197: classification/configs of the released DCNv4, 4b848f7.
    "flash_t": (64, 16, 4, 18),
    "flash_s": (80, 16, 4, 21),
    "flash_b": (112, 16, 4, 21),
    "flash_l": (160, 16, 5, 22),
}

_LARGE = {"center_feature_scale": True, "dw_kernel_size": 5, "head": "clip"}
_DCNV4 = {"core": "dcnv4", "normalize": "none", "core_output_bias": False, "mlp_output_bias": False}
_DCNV4_DEEP = {**_DCNV4, "post_norm": True, "layer_scale": 1e-5, "dw_kernel_size": 3}
_EXTRAS: dict[str, dict[str, Any]] = {
    "s": {"post_norm": True, "layer_scale": 1e-5},
    "b": {"post_norm": True, "layer_scale": 1e-5},
    "l": {"post_norm": True, "layer_scale": 1e-5, "offset_scale": 2.0},
    "xl": {"post_norm": True, "layer_scale": 1e-5, "offset_scale": 2.0},
    "h": {"res_post_norm": True, "level2_post_norm_blocks": tuple(range(5, 32, 6)), **_LARGE},
    "g": {"post_norm": True, "level2_post_norm_blocks": tuple(range(5, 48, 6)), "depths": (2, 2, 48, 4), **_LARGE},
    "flash_t": _DCNV4,
    "flash_s": _DCNV4_DEEP,
    "flash_b": {**_DCNV4_DEEP, "offset_scale": 0.5},
    "flash_l": {**_DCNV4_DEEP, "offset_scale": 2.0, "core_output_bias": True, "mlp_output_bias": True},
}
# Ours: sizes that train on two cores; everything else is a published architecture.
OURS = frozenset({"femto", "pico", "nano"})


def list_models() -> list[str]:
    """Names that `create_model` takes, small to large; at the end those with DCNv4.

    >>> list_models()[3], list_models()[-1]
    ('internimage_t', 'flash_internimage_l')
    """
    return [full_name(name) for name in _STACKED]


def full_name(name: str) -> str:
    """A name as `list_models` has it: ``"t"`` or ``"internimage_t"``, ``"flash_t"`` or ``"flash_internimage_t"``.

    >>> full_name("T"), full_name("flash_t")
    ('internimage_t', 'flash_internimage_t')
    """
    short = short_name(name)
    return _FLASH + PREFIX + short.removeprefix(_FLASH) if short.startswith(_FLASH) else PREFIX + short


def short_name(name: str) -> str:
    """The inverse of `full_name`."""
    name = name.lower()
    return (
        _FLASH + name.removeprefix(_FLASH + PREFIX) if name.startswith(_FLASH + PREFIX) else name.removeprefix(PREFIX)
    )


def letter_of(name: str) -> str:
    """The size of a variant, with either operator.

    >>> letter_of("internimage_xl"), letter_of("flash_t")
    ('xl', 't')
    """
    return short_name(name).removeprefix(_FLASH)


def variant_config(name: str) -> InternImageConfig:
    """The architecture of a name from `list_models`, with or without ``internimage_`` in it."""
    short = short_name(name)
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
    family = "FlashInternImage" if config.core == "dcnv4" else "InternImage"
    for short in _STACKED:
        known = variant_config(short)
        if architecture_of(known) == architecture_of(config):
            letter = short if short in OURS else letter_of(short).upper()
            return f"{family}-{letter} ({numbers})"
    return f"{'a' if config.core == 'dcnv4' else 'an'} {family} of {numbers}"


def architecture_of(config: InternImageConfig) -> tuple[object, ...]:
    """What makes weights another network's: two configurations that agree here differ in settings alone."""
    return config.core, config.channels, config.depths, config.groups
