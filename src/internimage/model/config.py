"""What an InternImage is made of, as one frozen value; the paper's stacking and scaling rules build it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, cast, get_args

from internimage.model.design.rules import check_design, nearest_in_words, scaled_design
from internimage.ops.dcnv3 import Normalize

NUM_STAGES = 4
Activation = Literal["gelu", "relu", "silu"]
HeadName = Literal["conv", "clip"]
CoreOperator = Literal["dcnv3", "dcnv4"]

_LISTS = ("depths", "groups", "level2_post_norm_blocks", "stem_strides")
_INTEGERS = ("channels", "num_classes", "in_chans")
_NUMBERS = ("mlp_ratio", "head_ratio", "offset_scale", "drop_rate", "drop_path_rate")
_SWITCHES = (
    "post_norm",
    "res_post_norm",
    "center_feature_scale",
    "remove_center",
    "shared_weights",
    "core_output_bias",
    "mlp_output_bias",
    "gradient_checkpointing",
)


@dataclass(frozen=True)
class InternImageConfig:
    """The architecture, free of weights and data.

    Source: section 3.2 and Table 1, arXiv:2211.05778; the H and G options are the released code's.

    Args:
        channels: C1, channels of stage 1; stage i has ``channels * 2**(i - 1)``. Even.
        depths: blocks of the four stages.
        groups: DCNv3 groups of the four stages; each divides its stage's channels.
        mlp_ratio: hidden channels of the feed-forward layer over its channels.
        offset_scale: factor on DCNv3's grid and offsets.
        layer_scale: initial value of the two learned factors a block puts on its branches, or None without them.
        post_norm: normalise after each branch instead of before it.
        res_post_norm: normalise before and after each branch (H); excludes the two above.
        level2_post_norm_blocks: blocks of stage 3 (counted from 0) that an extra normalisation follows (H, G).
        dw_kernel_size: kernel of the depth-wise convolution that predicts offsets; None means DCNv3's 3, and none in
            DCNv4.
        center_feature_scale: blend DCNv3's output with the projected input, one learned gate per group (H, G).
        remove_center: DCNv3 without the middle point.
        core: the deformable layer, ``"dcnv3"``, or ``"dcnv4"`` (FlashInternImage, arXiv:2401.06197), whose offsets and
            modulations are read from the input itself, or through a depth-wise convolution if there is
            ``dw_kernel_size``.
        normalize: modulation by ``"softmax"`` (DCNv3), ``"sigmoid"`` (DCNv2) or ``"none"`` (DCNv4).
        shared_weights: one point-wise projection for all sampling points (DCNv3, DCNv4); False gives every point its
            own (DCNv2's w_k, Eq. (1)), with DCNv3 alone.
        core_output_bias: whether the deformable layer's last projection has a bias.
        mlp_output_bias: whether the feed-forward layer's last projection has a bias.
        head: ``"conv"`` (T to XL) or ``"clip"``, attention pooling over stages 3 and 4 (H, G).
        head_ratio: channels of the conv head over those of stage 4.
        num_classes: outputs of the classifier; 0 makes it return pooled features.
        in_chans: channels of the image.
        stem_strides: strides of the stem's two convolutions; small images want (2, 1) or (1, 1).
        activation: ``"gelu"``, ``"relu"`` or ``"silu"``.
        drop_rate: dropout after the stem and in the feed-forward layers, in [0, 1).
        drop_path_rate: stochastic depth of the last block, in [0, 1).
        drop_path_schedule: ``"linear"`` from 0 in the first block, or ``"uniform"``.
        gradient_checkpointing: recompute each block in the backward pass instead of keeping its activations.

    Raises:
        ValueError: values that make no network, with the fix.
    """

    channels: int = 64
    depths: tuple[int, ...] = (4, 4, 18, 4)
    groups: tuple[int, ...] = (4, 8, 16, 32)
    mlp_ratio: float = 4.0
    offset_scale: float = 1.0
    layer_scale: float | None = None
    post_norm: bool = False
    res_post_norm: bool = False
    level2_post_norm_blocks: tuple[int, ...] = ()
    dw_kernel_size: int | None = None
    center_feature_scale: bool = False
    remove_center: bool = False
    core: CoreOperator = "dcnv3"
    normalize: Normalize = "softmax"
    shared_weights: bool = True
    core_output_bias: bool = True
    mlp_output_bias: bool = True
    head: HeadName = "conv"
    head_ratio: float = 1.5
    num_classes: int = 1000
    in_chans: int = 3
    stem_strides: tuple[int, int] = (2, 2)
    activation: Activation = "gelu"
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    drop_path_schedule: Literal["linear", "uniform"] = "linear"
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        for name in _LISTS:
            value = getattr(self, name)
            if not isinstance(value, Iterable):
                raise ValueError(f"{name} must be a list of integers, got {value!r}")
            # JSON and YAML bring lists; a frozen value is hashable.
            object.__setattr__(self, name, tuple(cast(Iterable[int], value)))
        self._check_types()
        self._check_stages()
        self._check_choices()

    def _check_types(self) -> None:
        # JSON, YAML and command lines bring text and 64.0 where integers belong; torch would say so much later.
        for name in (*_LISTS, *_INTEGERS):
            value: Any = getattr(self, name)
            items = cast(tuple[Any, ...], value) if name in _LISTS else (value,)
            if not all(type(item) is int for item in items):
                raise ValueError(f"{name} must be made of integers, got {value!r}")
        for name in _NUMBERS:
            value = getattr(self, name)
            if type(value) not in (int, float) or not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number, got {value!r}")
        for name in _SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}")
        if self.layer_scale is not None and (
            type(self.layer_scale) not in (int, float) or not 0 < self.layer_scale < math.inf
        ):
            raise ValueError(f"layer_scale must be a positive number or None, got {self.layer_scale!r}")
        if self.dw_kernel_size is not None and (type(self.dw_kernel_size) is not int or self.dw_kernel_size < 1):
            raise ValueError(f"dw_kernel_size must be a positive integer or None, got {self.dw_kernel_size!r}")

    def _check_stages(self) -> None:
        if self.channels < 2 or self.channels % 2:
            raise ValueError(f"channels must be even and positive (the stem has half of them), got {self.channels}")
        if len(self.depths) != NUM_STAGES or len(self.groups) != NUM_STAGES:
            raise ValueError(f"depths and groups need {NUM_STAGES} values each, got {self.depths} and {self.groups}")
        if min(self.depths) < 1 or min(self.groups) < 1:
            raise ValueError(f"depths and groups must be positive, got {self.depths} and {self.groups}")
        for width, groups in zip(self.stage_channels, self.groups, strict=True):
            if width % groups:
                raise ValueError(f"{groups} groups do not divide {width} channels; stages have {self.stage_channels}")
        blocks = self.level2_post_norm_blocks
        if len(set(blocks)) < len(blocks) or not set(blocks) <= set(range(self.depths[2])):
            raise ValueError(f"level2_post_norm_blocks must be different blocks of {self.depths[2]}, got {blocks}")

    def _check_choices(self) -> None:
        if self.res_post_norm and (self.post_norm or self.layer_scale is not None):
            raise ValueError("res_post_norm excludes post_norm and layer_scale: a block has one form; drop one of them")
        for name, choices in (
            ("head", get_args(HeadName)),
            ("core", get_args(CoreOperator)),
            ("normalize", get_args(Normalize)),
            ("activation", get_args(Activation)),
            ("drop_path_schedule", ("linear", "uniform")),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if self.core == "dcnv4" and not (self.shared_weights and not self.center_feature_scale):
            raise ValueError("DCNv4 has shared weights and no center_feature_scale; leave both as they are by default")
        if int(self.channels * self.mlp_ratio) < 1 or int(self.stage_channels[-1] * self.head_ratio) < 1:
            raise ValueError(f"mlp_ratio and head_ratio leave no channels, got {self.mlp_ratio} and {self.head_ratio}")
        for name in ("drop_rate", "drop_path_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if self.num_classes < 0 or self.in_chans < 1:
            raise ValueError(f"num_classes >= 0 and in_chans >= 1, got {self.num_classes} and {self.in_chans}")
        if len(self.stem_strides) != 2 or not set(self.stem_strides) <= {1, 2}:
            raise ValueError(f"stem_strides must be two numbers of 1 or 2, got {self.stem_strides}")

    @property
    def stage_channels(self) -> tuple[int, ...]:
        """C1 to C4."""
        return tuple(self.channels * 2**stage for stage in range(NUM_STAGES))

    @property
    def stage_strides(self) -> tuple[int, ...]:
        """Pixels of the image per position of each stage's map, along one axis."""
        stem = self.stem_strides[0] * self.stem_strides[1]
        return tuple(stem * 2**stage for stage in range(NUM_STAGES))

    @classmethod
    def from_variant(cls, name: str, **overrides: Any) -> InternImageConfig:
        """A row of the variant table: ``"t"`` or ``"internimage_t"``.

        >>> InternImageConfig.from_variant("t").depths
        (4, 4, 18, 4)
        """
        # The table is made of this class, so it can't be imported above it.
        from internimage.model.variants import variant_config

        return replace(variant_config(name), **overrides)

    @classmethod
    def stacked(
        cls, channels: int, group_width: int, depth_outer: int, depth_inner: int, **others: Any
    ) -> InternImageConfig:
        """The stacking rules: four numbers (C1, C', L1, L3) fix a network of pattern A-A-B-A.

        Ci = 2**(i-1) C1, Gi = Ci / C', L1 = L2 = L4, L1 <= L3.

        Raises:
            ValueError: a width that is no multiple of the group width, or depths against the rules; with the nearest
                designs that are legal.

        Source: section 3.2, arXiv:2211.05778.

        >>> InternImageConfig.stacked(64, 16, 4, 18) == InternImageConfig.from_variant("t")
        True
        """
        check_design(channels, group_width, depth_outer, depth_inner)
        return cls(
            channels=channels,
            depths=(depth_outer, depth_outer, depth_inner, depth_outer),
            groups=tuple(channels * 2**stage // group_width for stage in range(NUM_STAGES)),
            **others,
        )

    def scaled(self, phi: float) -> InternImageConfig:
        """The scaling rule: depth grows by 1.09**phi, width by 1.36**phi, so that parameters grow by about 2**phi.

        Width is rounded to the group width; L1 keeps its share of the depth and L3 takes the rest, with the extra
        norms of H at the spacing they have.

        Raises:
            ValueError: a network that does not follow the stacking rules, as G, or phi out of range.

        Source: section 3.2, arXiv:2211.05778 (alpha = 1.09, beta = 1.36).

        >>> small = InternImageConfig.from_variant("t").scaled(1)
        >>> small.channels, small.depths
        (80, (4, 4, 21, 4))
        """
        group_width, outer, inner = self.channels // self.groups[0], self.depths[0], self.depths[2]
        shape = (outer, outer, inner, outer), tuple(width // group_width for width in self.stage_channels)
        if (self.depths, self.groups) != shape or outer > inner:
            raise ValueError(
                "the rule is for networks of pattern A-A-B-A (A <= B) and one group width, "
                f"got depths {self.depths} and groups {self.groups}; "
                f"{nearest_in_words((self.channels, group_width, outer, inner))}"
            )
        design = scaled_design((self.channels, group_width, outer, inner), phi)
        scaled = self.stacked(*design)
        blocks = self._post_norm_blocks(scaled.depths[2])
        return replace(
            self, channels=scaled.channels, depths=scaled.depths, groups=scaled.groups, level2_post_norm_blocks=blocks
        )

    def _post_norm_blocks(self, depth: int) -> tuple[int, ...]:
        """Blocks that an extra normalisation follows in a stage 3 of ``depth`` blocks, spaced as they are here."""
        blocks = sorted(self.level2_post_norm_blocks)
        if not blocks:
            return ()
        # A single norm after n blocks is one after every n.
        step = blocks[1] - blocks[0] if len(blocks) > 1 else blocks[0] + 1
        if blocks != list(range(blocks[0], self.depths[2], step)):
            raise ValueError(f"the rule is for evenly spaced level2_post_norm_blocks, got {tuple(blocks)}")
        if depth == self.depths[2]:
            return self.level2_post_norm_blocks
        return tuple(range(blocks[0], depth, step))

    @classmethod
    def from_official(cls, arguments: Mapping[str, Any]) -> InternImageConfig:
        """Read the official constructor's arguments (also as its YAML files and Hugging Face configs spell them).

        Args:
            arguments: InternImage's, or with ``core_op="DCNv4"`` FlashInternImage's, which has other defaults.

        Raises:
            ValueError: an unknown argument, or one that no released checkpoint uses and we do not build.

        >>> InternImageConfig.from_official({"channels": 64, "depths": [4, 4, 18, 4], "groups": [4, 8, 16, 32]}).head
        'conv'
        """
        from internimage.model.checkpoints.official.arguments import read_arguments

        return read_arguments(arguments)

    def to_official(self) -> dict[str, Any]:
        """The official constructor's arguments for this network; raises ``ValueError`` if it has none."""
        from internimage.model.checkpoints.official.arguments import write_arguments

        return write_arguments(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {key: _listed(value) for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> InternImageConfig:
        """The inverse of `to_dict`; raises ``ValueError`` for unknown keys."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown configuration keys {unknown}; known are {sorted(known)}")
        return cls(**values)


def _listed(value: Any) -> Any:
    return list(cast(Sequence[Any], value)) if isinstance(value, tuple) else value
