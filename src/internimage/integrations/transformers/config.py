"""The configuration as transformers keeps it: the published names of the settings, and the stages of a backbone."""

# transformers is typed in part only.
# pyright: reportIncompatibleVariableOverride=false

# No postponed annotations: transformers checks values against the types themselves.
from dataclasses import replace
from typing import Any, ClassVar, Self

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.backbone_utils import BackboneConfigMixin

from internimage.model import InternImageConfig as Architecture
from internimage.model.checkpoints.official.arguments import DCNV4, FLASH_FIELDS, OFFICIAL_ARGUMENTS
from internimage.model.config import NUM_STAGES
from internimage.structures import LabelMap

MODEL_TYPE = "internimage"
_OURS = ("in_chans", "stem_strides")


# transformers tells configurations by their class's name, and the published files call this one so.
@strict
class InternImageConfig(BackboneConfigMixin, PreTrainedConfig):
    """Settings of an InternImage under the names that the published ``config.json`` files use.

    `internimage.InternImageConfig` says what they mean; `from_internimage` and `to_internimage` translate. By default
    it is InternImage-T; with ``core_op="DCNv4"`` it is a FlashInternImage, which may have the two biases.
    ``in_chans`` and ``stem_strides`` are ours. ``num_classes`` and ``num_labels`` are one number, ``num_channels`` and
    ``in_chans`` another. ``out_features`` or ``out_indices`` choose a backbone's maps from ``stem`` and ``stage1`` to
    ``stage4``.

    Raises:
        ValueError: settings that make no network, or class names of another number than the classes.

    >>> InternImageConfig(out_indices=[3, 4]).out_features
    ['stage3', 'stage4']
    """

    model_type = MODEL_TYPE
    attribute_map: ClassVar[dict[str, str]] = {"num_classes": "num_labels", "num_channels": "in_chans"}
    stage_names: ClassVar[list[str]] = ["stem", *(f"stage{stage + 1}" for stage in range(NUM_STAGES))]

    core_op: str = "DCNv3"
    channels: int = 64
    depths: list[int] | tuple[int, ...] = (4, 4, 18, 4)
    groups: list[int] | tuple[int, ...] = (4, 8, 16, 32)
    mlp_ratio: float | int = 4.0
    drop_rate: float | int = 0.0
    drop_path_rate: float | int = 0.0
    drop_path_type: str = "linear"
    act_layer: str = "GELU"
    norm_layer: str = "LN"
    layer_scale: float | int | None = None
    offset_scale: float | int = 1.0
    post_norm: bool = False
    cls_scale: float | int = 1.5
    with_cp: bool = False
    dw_kernel_size: int | None = None
    use_clip_projector: bool = False
    level2_post_norm: bool = False
    level2_post_norm_block_ids: list[int] | tuple[int, ...] | None = None
    res_post_norm: bool = False
    center_feature_scale: bool = False
    remove_center: bool = False
    dcn_output_bias: bool = False
    mlp_fc2_bias: bool = False
    in_chans: int = 3
    stem_strides: list[int] | tuple[int, ...] = (2, 2)
    _out_features: list[str] | None = None
    _out_indices: list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        classes = kwargs.pop("num_classes", None)
        if self.id2label is None:
            kwargs["num_labels"] = kwargs.get("num_labels", 1000 if classes is None else classes)
        elif classes is not None and "num_labels" not in kwargs and len(self.id2label) != classes:
            raise ValueError(f"id2label names {len(self.id2label)} classes, but num_classes is {classes}; drop one")
        # Where the published repositories keep their own code, which is not what runs here.
        kwargs.pop("auto_map", None)
        self.set_output_features_output_indices(
            out_features=kwargs.pop("out_features", None), out_indices=kwargs.pop("out_indices", None)
        )
        super().__post_init__(**kwargs)
        # Says now what is wrong with a setting, not when a network is built.
        self.to_internimage()

    @property
    def hidden_sizes(self) -> list[int]:
        """Channels of the four stages."""
        return [self.channels * 2**stage for stage in range(NUM_STAGES)]

    def to_internimage(self) -> Architecture:
        """The same settings as `internimage.InternImageConfig`."""
        # The two biases are an option with DCNv4 alone.
        names = OFFICIAL_ARGUMENTS if self.core_op == DCNV4 else OFFICIAL_ARGUMENTS - FLASH_FIELDS.keys()
        official = Architecture.from_official({name: getattr(self, name) for name in sorted(names)})
        return replace(official, **{name: getattr(self, name) for name in _OURS})

    @classmethod
    def from_internimage(cls, architecture: Architecture, labels: LabelMap | None = None, **others: Any) -> Self:
        """The settings of `internimage.InternImageConfig`, class names, and any of transformers' own settings.

        >>> InternImageConfig.from_internimage(Architecture.from_variant("b", num_classes=10)).channels
        112
        """
        ours = {name: getattr(architecture, name) for name in _OURS}
        # The official constructor has no word for these two.
        official = replace(architecture, in_chans=3, stem_strides=(2, 2)).to_official()
        if labels is not None:
            others |= {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
        return cls(**official, **ours, **others)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with ``num_classes`` as the published files have it, and without placeholders for names."""
        values = super().to_dict() | {"num_classes": self.num_labels}
        if self.id2label == {index: f"LABEL_{index}" for index in range(self.num_labels or 0)}:
            del values["id2label"], values["label2id"]
        return values

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read ``config.json``; ``ValueError`` if it is another model's."""
        values, unused = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        kinds = [values, *(value for value in values.values() if isinstance(value, dict))]
        # A segmenter's or a detector's file holds its backbone's settings inside.
        if not any(kind.get("model_type") == MODEL_TYPE for kind in kinds):
            raise ValueError(
                f"{pretrained_model_name_or_path} holds a model of type {values.get('model_type')!r}, not "
                f"{MODEL_TYPE!r}; load it with the Auto class of its task, or name another folder"
            )
        return values, unused
