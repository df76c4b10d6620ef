"""What a saved state must have in common with the training that resumes it, and what may change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from internimage.model import Card
from internimage.model.variants import describe_variant
from internimage.structures import LabelMap

# What may differ between the parts of one training: none of it changes a weight's meaning.
_FREE = {"num_classes", "drop_rate", "drop_path_rate", "drop_path_schedule", "gradient_checkpointing"}
# Of a detector or segmenter: what it shows of what it found, how it learns, and how large its pictures are.
_FREE_SETTINGS = {
    "viewing",
    "palette",
    "dropout",
    "auxiliary_weight",
    "points",
    "framing",
    "proposals_per_level",
    "proposals",
    "samples",
    "detections",
    "score_threshold",
    "nms_threshold",
    "mask_threshold",
}


def regroup(saved: dict[str, Any], groups: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> None:
    """Change an AdamW's saved state so that it fits other groups and settings; every parameter keeps its moments.

    Args:
        saved: with ``state`` and ``param_groups``, whose ``names`` say which parameter has which number.
        groups: as `param_groups` makes them now. A state without names stays as it is.
        settings: what all groups have in common now.

    Raises:
        ValueError: other parameters learned then.
    """
    numbers = {
        name: (number, group)
        for group in saved["param_groups"]
        for name, number in zip(group.get("names", ()), group["params"], strict=False)
    }
    names = [name for group in groups for name in group["names"]]
    if not numbers:
        return
    if differing := set(names) ^ set(numbers):
        raise ValueError(
            f"other parameters learned when the state was saved ({len(differing)} differ, such as {min(differing)}); "
            "set optimizer.frozen_stages as it was, or begin a new run from its weights with model.init_args.pretrained"
        )
    state, regrouped, count = saved["state"], list[dict[str, Any]](), 0
    for group in groups:
        places = range(count, count := count + len(group["names"]))
        now = {"names": group["names"], "weight_decay": group["weight_decay"], "params": list(places)}
        # The rates are the old ones, until the schedule's state is loaded.
        regrouped.append({**numbers[group["names"][0]][1], **settings, **now})
    old = [numbers[name][0] for name in names]
    saved["state"] = {place: state[number] for place, number in enumerate(old) if number in state}
    saved["param_groups"] = regrouped


def check_same(theirs: Card, mine: Card, path: str) -> None:
    """Raise ``ValueError`` in words if a checkpoint's weights mean something else in this task's network.

    Args:
        theirs: of the checkpoint.
        mine: of the task.
        path: the checkpoint.
    """
    if theirs.labels != mine.labels:
        wanted, given = classes_in_words(theirs.labels), classes_in_words(mine.labels)
        raise ValueError(
            f"{path} was trained for {wanted}, but the data has {given}; "
            "give the data it was trained on, or train another run"
        )
    for name in ("channels", "depths", "groups"):
        if getattr(theirs.config, name) != getattr(mine.config, name):
            raise ValueError(
                f"{path} holds {describe_variant(theirs.config)}, but the run's settings say "
                f"{describe_variant(mine.config)}; set model.init_args.model as it was"
            )
    _check_parts(theirs, mine, path)
    names = [field.name for field in fields(theirs.config) if field.name not in _FREE]
    differing = [name for name in names if getattr(theirs.config, name) != getattr(mine.config, name)]
    if differing:
        pairs = [f"{name}={getattr(theirs.config, name)!r}, not {getattr(mine.config, name)!r}" for name in differing]
        raise ValueError(f"{path} was trained with {'; '.join(pairs)}; set model.init_args.model_options as they were")


def _check_parts(theirs: Card, mine: Card, path: str) -> None:
    """Of networks that are more than a backbone and a head: what they are made of."""
    if theirs.task != mine.task:
        raise ValueError(f"{path} holds a network for {theirs.task}, but the run is one of {mine.task}")
    # What only one of them says came with a newer version.
    keys = sorted((theirs.settings.keys() & mine.settings.keys()) - _FREE_SETTINGS)
    differing = [key for key in keys if theirs.settings.get(key) != mine.settings.get(key)]
    if differing:
        pairs = [f"{key}={theirs.settings.get(key)!r}, not {mine.settings.get(key)!r}" for key in differing]
        raise ValueError(f"{path} was trained with {'; '.join(pairs)}; set model.init_args as they were")


def classes_in_words(labels: LabelMap | None) -> str:
    """How many classes, and the first of their names."""
    if labels is None:
        return "no named classes"
    names = ", ".join(labels.names[:5]) + (", ..." if len(labels) > 5 else "")
    return f"{len(labels)} classes ({names})"
