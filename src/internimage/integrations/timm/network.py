"""The adapter: our classifier with timm's methods, under the same weight names.

Shape legend: N batch, H W map, C channels.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from timm.models import adapt_input_conv
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from internimage.model.backbone import Stage
from internimage.model.checkpoints.convert import to_ours
from internimage.model.checkpoints.files import Checkpoint, read_checkpoint
from internimage.model.checkpoints.loading import check_architecture, differing_settings, load_checkpoint
from internimage.model.classifier import InternImageClassifier
from internimage.model.config import InternImageConfig
from internimage.model.layers import to_nchw

FIRST_CONV, CLASSIFIER = "backbone.stem.conv1", "head.fc"
# What each head can do to its map; the first is what the weights were trained with.
_POOLS = {"conv": ("avg", "max", "avgmax", ""), "clip": ("map", "")}
# timm gives these three a place or a meaning of their own.
_SETTINGS = sorted({field.name for field in fields(InternImageConfig)} - {"num_classes", "in_chans", "drop_rate"})


class TimmInternImage(InternImageClassifier):
    """Our classifier with timm's interface. Maps are NCHW, channels-last in memory.

    ``forward_features`` gives the map that the head pools: for T to XL the widened last stage, for H and G stages 3 and
    4 brought together (1,024 channels at stride 16). ``num_features`` are its channels, ``head_hidden_size`` those of
    the pooled vector. ``forward_intermediates`` gives the four stages' own maps.

    Args:
        cfg: the architecture.
        num_classes: outputs; 0 for pooled features.
        in_chans: channels of the image.
        global_pool: ``"avg"``, ``"max"`` or ``"avgmax"`` (T to XL), ``"map"``, the attention of H and G, or ``""``:
            no pooling, which needs ``num_classes=0``. By default what the weights were trained with.
        drop_rate: dropout before the last layer, as in timm; `InternImageConfig.drop_rate` is ``proj_drop_rate`` here.
        proj_drop_rate: dropout after the stem and in the feed-forward layers.
        keep_head: False if only intermediate maps are wanted: weights may then come without a head.
        device: where to build, as for any module.
        dtype: of the weights.
        settings: other fields of `InternImageConfig`, for example ``drop_path_rate``.

    Raises:
        ValueError: an unknown setting, or a pooling that this head does not have.
    """

    pretrained_cfg: dict[str, Any]

    def __init__(  # noqa: PLR0913  # timm passes its arguments one by one
        self,
        cfg: InternImageConfig,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str | None = None,
        drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        keep_head: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **settings: Any,
    ) -> None:
        if unknown := sorted(set(settings) - set(_SETTINGS)):
            raise ValueError(f"unknown settings {unknown}; InternImage has timm's usual ones and {_SETTINGS}")
        config = replace(cfg, num_classes=num_classes, in_chans=in_chans, drop_rate=proj_drop_rate, **settings)
        pool = _checked_pool(config.head, global_pool, num_classes)
        with nullcontext() if device is None else torch.device(device):
            super().__init__(config)
        self.global_pool = pool
        self.drop_rate = drop_rate
        self.head_drop = nn.Dropout(drop_rate)
        self.keep_head = keep_head
        self.feature_info = [
            {"num_chs": channels, "reduction": stride, "module": f"backbone.stages.{stage}"}
            for stage, (channels, stride) in enumerate(zip(config.stage_channels, config.stage_strides, strict=True))
        ]
        if dtype is not None:
            self.to(dtype)

    @property
    def in_chans(self) -> int:
        """Channels of the image."""
        return self.config.in_chans

    @property
    def is_pruned(self) -> bool:
        """Whether the head is gone."""
        return isinstance(self.head, nn.Identity)

    @property
    def num_features(self) -> int:
        """Channels of what ``forward_features`` gives."""
        return self._last_channels if self.is_pruned else self.head.map_channels

    @property
    def head_hidden_size(self) -> int:
        """Width of the pooled features before the last layer."""
        return self._last_channels if self.is_pruned else self.head.num_features

    @property
    def _stages(self) -> list[Stage]:
        return cast("list[Stage]", list(self.backbone.stages))

    @property
    def _last_channels(self) -> int:
        return self.config.stage_channels[len(self.backbone.stages) - 1]

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.head if self.is_pruned else self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a fresh last layer in place, and another pooling if it is named.

        Raises:
            ValueError: the head was pruned, or has no such pooling.
        """
        if self.is_pruned:
            raise ValueError("the head was pruned with the layers before it; create the model again")
        pool = self.global_pool if global_pool is None else global_pool
        self.global_pool = _checked_pool(self.config.head, pool, num_classes)
        super().reset_classifier(num_classes)

    def no_weight_decay(self) -> set[str]:
        """Nothing beyond biases and what is one-dimensional, which timm leaves out by itself."""
        return set()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layers for layer decay, in the order of `internimage.training.param_groups`; stages if ``coarse``."""
        if coarse:
            return {"stem": r"^backbone\.stem", "blocks": r"^backbone\.stages\.(\d+)"}
        depths = [len(stage.blocks) for stage in self._stages]
        last = len(depths) - 1, depths[-1] - 1
        # Pattern and (stage, block), where the pattern does not hold them: the first match counts.
        places: list[tuple[str, tuple[int, int] | None]] = [
            (r"^backbone\.stem", (0, 0)),
            (r"^backbone\.stages\.(\d+)\.blocks\.(\d+)", None),
            (r"^backbone\.stages\.\d+\.post_norms", last),
        ]
        places += [
            (rf"^backbone\.stages\.{stage}\.(?:downsample|norm)", (stage + 1, 0)) for stage in range(len(depths) - 1)
        ]
        return {"layers": [*places, (r"^", last)]}

    # timm's contract is one map where our classifier hands all four to its head; forward() fits either way.
    def forward_features(self, image_NCHW: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The map that the head pools, (N, ``num_features``, H, W)."""
        return self._feature_map(self.backbone.forward_stages(image_NCHW))

    def forward_head(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x_NCHW: Tensor, pre_logits: bool = False
    ) -> Tensor:
        """What ``forward_features`` gave to class scores, or to pooled features with ``pre_logits``."""
        if not self.global_pool:
            return x_NCHW
        pooled_NC = self.head_drop(self._pooled(x_NCHW))
        return pooled_NC if pre_logits else self.head.fc(pooled_NC)

    def _feature_map(self, maps_NHWC: list[Tensor]) -> Tensor:
        return to_nchw(maps_NHWC[-1]) if self.is_pruned else self.head.feature_map(maps_NHWC)

    def _pooled(self, x_NCHW: Tensor) -> Tensor:
        if self.global_pool == "max":
            return x_NCHW.amax((2, 3))
        pooled_NC = self.head.pooled(x_NCHW)
        return 0.5 * (pooled_NC + x_NCHW.amax((2, 3))) if self.global_pool == "avgmax" else pooled_NC

    def forward_intermediates(
        self,
        image_NCHW: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: Literal["NCHW", "NHWC"] = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The stages' maps, and what ``forward_features`` gives.

        Args:
            image_NCHW: images.
            indices: stages from 0, negative ones from the end; the last n for a number, all for None. Maps come in
                this order.
            norm: no effect: a stage that ends with a normalisation has it always.
            stop_early: leave out stages after the last one asked for; the first result is then that one's map.
            output_fmt: of the intermediate maps.
            intermediates_only: only the maps.

        Raises:
            ValueError: another ``output_fmt``.
        """
        if output_fmt not in ("NCHW", "NHWC"):
            raise ValueError(f"output_fmt must be NCHW or NHWC, got {output_fmt!r}")
        num_stages = len(self.backbone.stages)
        taken, last = feature_take_indices(num_stages, cast(Any, indices))
        count = last + 1 if stop_early or intermediates_only else num_stages
        maps_NHWC = self.backbone.forward_stages(image_NCHW, count)
        chosen = [maps_NHWC[index] if output_fmt == "NHWC" else to_nchw(maps_NHWC[index]) for index in taken]
        if intermediates_only:
            return chosen
        return (self._feature_map(maps_NHWC) if count == num_stages else to_nchw(maps_NHWC[-1])), chosen

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the stages after the last of ``indices`` and, with them or with ``prune_head``, the head.

        Returns the indices, none of them negative. ``prune_norm`` has no effect: norms belong to the stages.
        """
        taken, last = feature_take_indices(len(self.backbone.stages), cast(Any, indices))
        is_cut = last < len(self.backbone.stages) - 1
        if is_cut:
            self.backbone.stages = self.backbone.stages[: last + 1]
            # Parameters that no loss reaches are an error in distributed training.
            self._stages[last].downsample = None
        if (prune_head or is_cut) and not self.is_pruned:
            super().reset_classifier(0)
            self.global_pool, self.head = "", cast(Any, nn.Identity())
        return taken

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As for any module; official names, and ours under a prefix, are taken too (timm's ``checkpoint_path``)."""
        return super().load_state_dict(our_names(state_dict, self), strict, assign)

    def load_pretrained(self, checkpoint_path: str | Path, prefix: str = "") -> None:
        """Load a file of any format that `internimage.load_checkpoint` knows, adapted by timm's rules.

        The first convolution takes other channels as timm's do, and the last layer starts anew if ``num_classes`` is
        not the declared one (``pretrained_cfg["num_classes"]``) and not the file's.

        Raises:
            ValueError: weights that do not fit, in words; or a last layer of random numbers that nobody asked for.
        """
        found = read_checkpoint(checkpoint_path)
        # Of two things to say, the one that explains the other.
        check_architecture(found, self.config)
        theirs = self._classes_of(found)
        state = dict(found.state)
        weight = state.get(f"{FIRST_CONV}.weight")
        # timm knows what to do with RGB; anything else is adapted by load_checkpoint.
        if weight is not None and weight.shape[1] == 3:
            state[f"{FIRST_CONV}.weight"] = adapt_input_conv(self.in_chans, weight)
        is_new = theirs != self.num_classes or not self.keep_head
        load_checkpoint(self, replace(found, state=state), reset_head=is_new)
        if differing := differing_settings(found, self.config, strict=False):
            warnings.warn(f"{found.path}: {'; '.join(differing)}", stacklevel=2)

    def _classes_of(self, found: Checkpoint) -> int:
        """Classes of the file's last layer, 0 without one; an error if the model's would be random unasked."""
        weight = found.state.get(f"{CLASSIFIER}.weight")
        theirs = 0 if weight is None else weight.shape[0]
        declared = getattr(self, "pretrained_cfg", {}).get("num_classes", self.num_classes)
        is_new = self.num_classes not in (0, declared)
        if not is_new and self.keep_head:
            if not any(key.startswith("head.") for key in found.state):
                raise ValueError(
                    f"{found.path} has no classification head; pass features_only=True, or num_classes for a new head"
                )
            if self.num_classes not in (0, theirs):
                raise ValueError(
                    f"{found.path} was trained for {theirs} classes, the model has {self.num_classes}; declare it: "
                    f"pretrained_cfg_overlay=dict(file=..., num_classes={theirs}), and num_classes for a new head"
                )
        return theirs


def _checked_pool(head: str, global_pool: str | None, num_classes: int) -> str:
    choices = _POOLS[head]
    if global_pool is None:
        return choices[0]
    if global_pool not in choices:
        named = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"global_pool must be one of {named} for the {head} head, got {global_pool!r}")
    if not global_pool and num_classes:
        raise ValueError(
            f"global_pool '' needs num_classes=0, got {num_classes}: the last layer classifies a pooled vector; "
            f"pass global_pool={choices[0]!r}"
        )
    return global_pool


def our_names(state: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    """Weights under our names, whatever is not the network's under its own, so that strict loading reports it."""
    if f"{FIRST_CONV}.weight" in state:
        return dict(state)
    try:
        converted = to_ours(cast("dict[str, Tensor]", state))
    except ValueError:
        # Not a whole network: a last layer, for example. Loading says what is missing.
        return dict(state)
    return {**converted.state, **{key: state[key] for key in converted.foreign if key in state}}
