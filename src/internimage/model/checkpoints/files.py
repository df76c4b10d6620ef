"""Reading and writing weight files: ours (safetensors with everything needed to predict), and all official containers.

Pickled files are read with ``weights_only=True``: tensors and plain values, never code.
"""

# safetensors is typed in part only.
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

import json
import math
import pickle
import re
import shutil
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from internimage.model.backbone import InternImage
from internimage.model.checkpoints.convert import to_ours
from internimage.model.checkpoints.official.arguments import OFFICIAL_ARGUMENTS
from internimage.model.checkpoints.official.composite import composite_to_ours, holds_composite
from internimage.model.classifier import InternImageClassifier
from internimage.model.config import InternImageConfig
from internimage.structures import LabelMap, Preprocess

# The key of our JSON in a safetensors header and in a training checkpoint.
CARD_KEY = "internimage"
CLASSIFICATION, DETECTION, SEGMENTATION = "classification", "detection", "segmentation"
_FORMAT = 1
_INDEX = "model.safetensors.index.json"
# What a Hugging Face folder may hold; large models are split, and the index names the parts.
HUB_FILES = ("model.safetensors", _INDEX, "pytorch_model.bin")
# Pillow's numbers, as transformers writes them.
_RESAMPLING: dict[int, Literal["nearest", "bilinear", "bicubic"]] = {0: "nearest", 2: "bilinear", 3: "bicubic"}
_ADVICE = "re-save it as safetensors, or with only tensors in it"


@dataclass(frozen=True)
class Card:
    """What a weight file says about itself, beyond its weights.

    Args:
        config: the architecture.
        labels: class names, or None.
        preprocess: how a classifier's images become inputs, or None.
        task: what the network does; other than classification, ``config`` is that of its backbone.
        settings: what else such a network needs, in plain values that its own reader understands.
    """

    config: InternImageConfig
    labels: LabelMap | None = None
    preprocess: Preprocess | None = None
    task: str = CLASSIFICATION
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def check(self) -> None:
        """Raise ``ValueError`` if the images are not what the network takes."""
        if self.preprocess is not None and self.preprocess.in_chans != self.config.in_chans:
            made = "1 channel" if self.preprocess.in_chans == 1 else f"{self.preprocess.in_chans} channels"
            raise ValueError(
                f"preprocess makes images of {made}, but the model takes {self.config.in_chans}; "
                "give mean and std one value per channel of the model"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        values: dict[str, Any] = {
            "format": _FORMAT,
            "model": self.config.to_dict(),
            "labels": None if self.labels is None else list(self.labels),
            "preprocess": None if self.preprocess is None else self.preprocess.to_dict(),
        }
        return values if self.task == CLASSIFICATION else values | {"task": self.task, "settings": dict(self.settings)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Card:
        """The inverse of `to_dict`; raises ``ValueError`` for anything else."""
        if values.get("format") != _FORMAT or not isinstance(values.get("model"), dict):
            raise ValueError(f"no description of format {_FORMAT}: a newer internimage may have written it")
        labels, preprocess = values.get("labels"), values.get("preprocess")
        card = cls(
            InternImageConfig.from_dict(values["model"]),
            None if labels is None else LabelMap(labels),
            None if preprocess is None else Preprocess.from_dict(preprocess),
            values.get("task", CLASSIFICATION),
            values.get("settings", {}),
        )
        card.check()
        return card


@dataclass(frozen=True)
class Checkpoint:
    """A file's weights under our classifier's names, and what else the file said.

    Args:
        state: weights by name (``backbone.*`` and, if there is one, ``head.*``).
        card: architecture, labels and preprocessing, or None where the file does not say (official files).
        foreign: keys that belong to something else, a detector's neck for example.
        origin: ``"ours"``, ``"official"`` or ``"huggingface"``.
        path: the file.
        others: the weights of the ``foreign`` keys.
        said: what the file's training said of itself, as mmdetection's ``meta``; empty in most files.
    """

    state: dict[str, Tensor]
    card: Card | None
    foreign: tuple[str, ...]
    origin: str
    path: Path
    others: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    said: Mapping[str, Any] = field(default_factory=dict[str, Any])


def save_checkpoint(
    model: nn.Module,
    path: str | Path,
    *,
    labels: LabelMap | None = None,
    preprocess: Preprocess | None = None,
    overwrite: bool = False,
) -> Path:
    """Write ``path`` (``.safetensors``) with all that prediction needs, and the same description as JSON beside it.

    Raises:
        ValueError: another suffix, another model, or labels or preprocessing that do not match the model.
        FileExistsError: the file exists and ``overwrite`` is not set.
    """
    path = Path(path)
    if not isinstance(model, InternImage | InternImageClassifier):
        name = type(model).__name__
        raise ValueError(
            f"model must be an InternImage backbone or classifier, got {name}; others: save_detector, save_segmenter"
        )
    check_target(path, overwrite=overwrite)
    classes = model.num_classes if isinstance(model, InternImageClassifier) else 0
    if labels is not None and len(labels) != classes:
        raise ValueError(f"{len(labels)} class names for a model of {classes} classes")
    card = Card(model.config, labels, preprocess)
    card.check()
    return write_weights(model, card, path)


def check_target(path: Path, *, overwrite: bool) -> None:
    """Raise ``ValueError`` for another suffix, ``FileExistsError`` for a file that is there, or its description."""
    if path.suffix != ".safetensors":
        raise ValueError(f"weights are saved as .safetensors, got {path}")
    for existing in (path, path.with_suffix(".json")):
        if existing.exists() and not overwrite:
            raise FileExistsError(f"{existing} exists; choose another name or pass overwrite=True")


def write_weights(model: nn.Module, card: Card, path: Path) -> Path:
    """Write a network's weights with its card inside, and the card as JSON beside it; replaces what is there."""
    values, description = card.to_dict(), path.with_suffix(".json")
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    # A full disk or Ctrl-C must not leave half a file under the name of a whole one.
    partial, beside = path.with_suffix(".partial"), path.with_suffix(".json.partial")
    try:
        save_file(state, partial, metadata={"format": "pt", CARD_KEY: json.dumps(values)})
        beside.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        # safetensors makes files for their owner's eyes only, whatever the user's umask says.
        shutil.copymode(beside, partial)
        partial.replace(path)
        beside.replace(description)
    finally:
        for file in (partial, beside):
            file.unlink(missing_ok=True)
    return path


def read_checkpoint(path: str | Path, *, ema: bool | None = None) -> Checkpoint:
    """Read any InternImage weight file: ours, official classification, mmdetection, mmsegmentation, Hugging Face.

    Args:
        path: a file, or a folder with ``model.safetensors`` (in parts or whole) or ``pytorch_model.bin`` and
            ``config.json``.
        ema: True for the moving average, False for the raw weights, None for the file's main entry.

    Raises:
        ValueError: the file is damaged, holds code, or is not an InternImage's.
    """
    path = _file_in(Path(path))
    contents, card = _read_contents(path)
    given = _choose_state(contents, ema, path)
    try:
        converted = composite_to_ours(given) if holds_composite(given) else to_ours(given)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    others = _in_float32({key: given[key] for key in converted.foreign if key in given})
    said: Any = contents.get("meta")
    said = cast(dict[str, Any], said) if isinstance(said, dict) else {}
    state, card = _in_float32(converted.state), card or _card_beside(path)
    return Checkpoint(state, card, converted.foreign, converted.origin, path, others, said)


def _in_float32(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Training in 16 bit leaves 16-bit files; a network starts in float32 and is cast by its user."""
    low = (torch.float16, torch.bfloat16)
    return {key: tensor.float() if tensor.dtype in low else tensor for key, tensor in state.items()}


def _file_in(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"no weights at {path}")
    if path.is_dir():
        for name in HUB_FILES:
            if (path / name).is_file():
                return path / name
        found = sorted(path.glob("*.safetensors"))
        if len(found) == 1:
            return found[0]
        what = f"holds {len(found)} .safetensors files" if found else "has no model.safetensors"
        raise ValueError(f"{path} {what}; name the weight file itself")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes); download or copy it again")
    return path


def shard_names(path: Path) -> list[str]:
    """The parts that an index of split weights names; none for any other file."""
    if path.name != _INDEX:
        return []
    names = sorted(set(cast(dict[str, str], _read_json(path).get("weight_map", {})).values()))
    if any(Path(name).name != name for name in names):
        raise ValueError(f"{path} names files outside its folder; download it again from where it was published")
    return names


def describes_itself(path: Path) -> bool:
    """Whether these are weights of ours, with their description in the file."""
    if path.suffix != ".safetensors":
        return False
    try:
        with safe_open(path, framework="pt") as file:
            return CARD_KEY in cast(dict[str, str], file.metadata() or {})
    except SafetensorError:
        # Damaged: whoever reads the weights says so, and a description would not help.
        return True


def _read_contents(path: Path) -> tuple[dict[str, Any], Card | None]:
    if path.name == _INDEX:
        parts = [path.parent / name for name in shard_names(path)]
        if lost := [part.name for part in parts if not part.is_file()]:
            raise ValueError(f"{path} names {', '.join(lost)}, which lies not beside it; download or copy it too")
        return {key: value for part in parts for key, value in _read_safetensors(part)[0].items()}, None
    if path.suffix == ".json":
        raise ValueError(f"{path} describes weights; name the weight file itself")
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)


def _read_safetensors(path: Path) -> tuple[dict[str, Any], Card | None]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = cast(dict[str, str], file.metadata() or {})
            state = {key: cast(Tensor, file.get_tensor(key)) for key in cast(list[str], file.keys())}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}); download or copy it again") from None
    return state, _card(metadata[CARD_KEY], path) if CARD_KEY in metadata else None


def _read_pickle(path: Path) -> tuple[dict[str, Any], Card | None]:
    # Values that official training loops put beside the weights; each is inert. Configurations of yacs are dicts.
    scalar, array = np.float64(0).__reduce__()[0], np.ndarray(0).__reduce__()[0]
    allowed = [
        (OrderedDict, "yacs.config.CfgNode"),
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        (array, "numpy.core.multiarray._reconstruct"),
        (array, "numpy._core.multiarray._reconstruct"),
        *(np.ndarray, np.dtype),
        *(type(np.dtype(kind)) for kind in ("float64", "float32", "float16", "int64", "int32", "bool")),
    ]
    try:
        with torch.serialization.safe_globals(cast(Any, allowed)):
            contents: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        culprit = re.search(r"GLOBAL (\S*\w) (?:was|whose)|unrecognized function (.+)", str(error))
        what = next(filter(None, culprit.groups()), None) if culprit else None
        if what:
            raise ValueError(f"{path} is refused: loading it would run {what}; {_ADVICE}") from None
        raise ValueError(f"{path} is not a PyTorch weight file, or is damaged; download or copy it again") from None
    except PermissionError:
        raise
    # A damaged pickle can fail in any way: an empty stack, an unknown key, text that is none.
    except Exception as error:
        raise ValueError(f"{path} is damaged or cut short ({_first_line(error)}); download or copy it again") from None
    if not isinstance(contents, dict):
        raise ValueError(f"{path} holds a {type(contents).__name__}, not weights by name")
    named = cast(dict[str, Any], contents)
    return named, _card(named[CARD_KEY], path) if CARD_KEY in named else None


def _choose_state(contents: Mapping[str, Any], ema: bool | None, path: Path) -> dict[str, Tensor]:
    """Take the weights out of a container: Lightning's, the official trainer's, mmengine's, DeepSpeed's, or none."""
    average = "state_dict" if "current_model_state" in contents else "model_ema"
    raw = "current_model_state" if "current_model_state" in contents else "model"
    wanted = {True: (average,), False: (raw, "state_dict", "module"), None: ("state_dict", "model", "module")}[ema]
    for key in wanted:
        if isinstance(contents.get(key), dict):
            return _tensors(contents[key])
    if ema:
        raise ValueError(f"{path} has no moving average; leave ema unset to take its weights")
    return _tensors(contents)


def _tensors(values: Mapping[str, Any]) -> dict[str, Tensor]:
    return {
        key: value
        for key, value in cast(dict[Any, Any], values).items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }


def _card_beside(path: Path) -> Card | None:
    # A config.json belongs to the folder's model, not to every weight file that someone puts there.
    names = [path.with_suffix(".json")] + ([path.parent / "config.json"] if path.name in HUB_FILES else [])
    for name in names:
        if not name.is_file():
            continue
        values = _read_json(name)
        if "model" in values and "format" in values:
            return _card(values, name)
        if values.get("model_type") == "internimage":
            # Beside the constructor's arguments, transformers writes settings of its own.
            official = {key: value for key, value in values.items() if key in OFFICIAL_ARGUMENTS}
            # What the official network always has, and ours need not.
            ours = {key: values[key] for key in ("in_chans", "stem_strides") if key in values}
            config = replace(InternImageConfig.from_official(official), **ours)
            return Card(config, _named_classes(values, config.num_classes), _processor_beside(name))
    return None


def _processor_beside(config: Path) -> Preprocess | None:
    """What transformers' image processor does, in our words; None where no file says it."""
    path = config.with_name("preprocessor_config.json")
    if not path.is_file():
        return None
    values = _read_json(path)
    short, size = (_edge(values.get(key), edge) for key, edge in (("size", "shortest_edge"), ("crop_size", "height")))
    steps = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
    try:
        if not all(values.get(step, True) for step in steps):
            raise ValueError("it leaves out a step")
        # The next smaller ratio where rounding would lose a pixel.
        ratio = size / short if int(size / (size / short)) == short else math.nextafter(size / short, 0)
        resampling = _RESAMPLING[values.get("resample", 3)]
        return Preprocess(size, ratio, resampling, tuple(values["image_mean"]), tuple(values["image_std"]))
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
        warnings.warn(f"{path} is ignored, as our preprocessing can't follow it: {error!r}", stacklevel=2)
        return None


def _edge(given: Any, name: str) -> Any:
    """The number of pixels; older files give it alone."""
    return cast(dict[str, Any], given).get(name) if isinstance(given, dict) else given


def _named_classes(values: Mapping[str, Any], num_classes: int) -> LabelMap | None:
    """Class names of a transformers configuration; None where it has none, too few, or only its placeholders."""
    given: Any = values.get("id2label")
    names = cast(dict[str, Any], given) if isinstance(given, dict) else {}
    keys = [str(index) for index in range(num_classes)]
    if not names or set(names) != set(keys) or names.get("0") == "LABEL_0":
        return None
    return LabelMap.telling_apart([str(names[key]) for key in keys])


def _card(description: str | Mapping[str, Any], path: Path) -> Card:
    try:
        values = json.loads(description) if isinstance(description, str) else description
        return Card.from_dict(values)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} has a description of its model that can't be read: {error}") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    return cast(dict[str, Any], values) if isinstance(values, dict) else {}


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
