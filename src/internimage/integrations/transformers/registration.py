"""Making transformers' Auto classes know InternImage, and its loader know the published weights' names."""

# transformers is typed in part only.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from transformers import (
    CONFIG_MAPPING,
    AutoBackbone,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    __version__,
)
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming, WeightTransform

from internimage.integrations.transformers.config import MODEL_TYPE, InternImageConfig
from internimage.integrations.transformers.models import (
    InternImageBackbone,
    InternImageForImageClassification,
    InternImageModel,
)
from internimage.integrations.transformers.processing import processor_classes
from internimage.model.checkpoints.convert import name_from_huggingface


class PublishedNames(WeightRenaming):
    """The published weights' names become ours as a file is read; ours stay as they are.

    Files are written with our names, which Trainer needs: it resumes from them without renaming.
    """

    def __init__(self) -> None:
        super().__init__(source_patterns=r"^model\.(.+)", target_patterns=r"\1")

    def rename_source_key(self, source_key: str) -> tuple[str, str | None]:
        """Our name, and what matched; the name as it is if it isn't a published one."""
        ours = name_from_huggingface(source_key)
        return (source_key, None) if ours is None else (ours, self.source_patterns[0])

    def reverse_transform(self) -> WeightTransform:
        """What happens on saving: nothing."""
        return self


def register(*, replace: bool = False) -> None:
    """Make transformers' Auto classes, ``pipeline`` and ``backbone_config`` know model type ``internimage``.

    Importing `internimage.integrations.transformers` does it, too; doing it again changes nothing.

    Args:
        replace: take the name even if transformers, or other code, has a model of this type.

    Raises:
        ValueError: the name is taken.
    """
    # The mapping's get() is a plain dictionary's, which knows none of its lazy entries.
    taken = CONFIG_MAPPING[MODEL_TYPE] if MODEL_TYPE in CONFIG_MAPPING else None  # noqa: SIM401
    if taken is not None and not taken.__module__.startswith("internimage.") and not replace:
        raise ValueError(
            f"transformers {__version__} knows another model of type {MODEL_TYPE!r} ({taken.__module__}."
            f"{taken.__name__}); call internimage.integrations.transformers.register(replace=True) to put this one in "
            "its place"
        )
    AutoConfig.register(MODEL_TYPE, InternImageConfig, exist_ok=True)
    AutoModel.register(InternImageConfig, InternImageModel, exist_ok=True)
    AutoModelForImageClassification.register(InternImageConfig, InternImageForImageClassification, exist_ok=True)
    AutoBackbone.register(InternImageConfig, InternImageBackbone, exist_ok=True)
    AutoImageProcessor.register(InternImageConfig, image_processor_classes=processor_classes(), exist_ok=True)
    register_checkpoint_conversion_mapping(MODEL_TYPE, [PublishedNames()], overwrite=True)
