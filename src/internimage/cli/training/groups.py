"""``internimage fit --print_groups``: what learns how fast, before anything is trained."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from internimage.cli.tables import table

_STAGE = re.compile(r"(.*\.)?stages\.(\d+)\.(.*)")
_HEADS = ["peak rate", "of lr", "decay", "parameters"]


def groups_table(groups: Sequence[dict[str, Any]], frozen: Iterable[tuple[str, int]], peak: float) -> str:
    """A line per group of `param_groups`, fastest first, then one for what does not learn.

    Args:
        groups: with ``params``, ``names``, ``lr`` and ``weight_decay``.
        frozen: names and sizes of the parameters that don't learn.
        peak: the learning rate that the shares are of.
    """
    rows: list[list[str]] = []
    layers: list[str] = []
    for group in groups:
        size = sum(parameter.numel() for parameter in group["params"])
        share = group["lr"] / peak if peak else 0.0
        rows.append([f"{group['lr']:.3e}", f"{share:.4f}", f"{group['weight_decay']:g}", f"{size:,}"])
        layers.append(in_short(group["names"]))
    total = sum(parameter.numel() for group in groups for parameter in group["params"])
    held = list(frozen)
    if held:
        rows.append(["frozen", "", "", f"{sum(count for _, count in held):,}"])
        layers.append(in_short([name for name, _ in held]))
    numbers = table(_HEADS, rows)
    lines = zip(numbers, ["layers", *layers], strict=True)
    width = max(map(len, numbers))
    return "\n".join([*(f"{line:<{width}}  {what}" for line, what in lines), f"\n{total:,} parameters learn"])


def in_short(names: Sequence[str]) -> str:
    """The layers that parameters belong to, as few words as say it.

    >>> in_short(["network.backbone.stem.conv1.weight", "network.backbone.stem.conv2.weight", "network.head.fc.bias"])
    'stem, head.fc'
    >>> in_short([f"backbone.stages.2.blocks.{block}.norm1.weight" for block in range(6)] + ["stages.2.norm.weight"])
    'stage 3 (blocks 1-6, norm)'
    """
    stages: dict[int, dict[str, list[int]]] = {}
    others: dict[str, None] = {}
    for name in names:
        if found := _STAGE.match(name):
            part, _, rest = found[3].partition(".")
            numbers = stages.setdefault(int(found[2]), {}).setdefault(part, [])
            if part in ("blocks", "post_norms"):
                number = int(rest.split(".")[0])
                numbers += [] if number in numbers else [number]
            continue
        short = name.removeprefix("network.").removeprefix("backbone.").rpartition(".")[0]
        others["stem" if short.startswith("stem") else short] = None
    in_words = [f"stage {stage + 1} ({', '.join(map(_part, parts.items()))})" for stage, parts in stages.items()]
    return ", ".join([*(["stem"] if "stem" in others else []), *in_words, *_merged(others)])


def _part(item: tuple[str, list[int]]) -> str:
    name, numbers = item
    if not numbers:
        return name
    first, last = min(numbers) + 1, max(numbers) + 1
    whole = "extra norms" if name == "post_norms" else "blocks"
    if first == last:
        return f"{whole.removesuffix('s')} {first}"
    is_run = len(numbers) == last - first + 1
    return (
        f"{whole} {first}-{last}" if is_run else f"{whole} {', '.join(str(number + 1) for number in sorted(numbers))}"
    )


def _merged(names: Iterable[str]) -> list[str]:
    """Of more than four parts outside the backbone, their common beginnings."""
    rest = [name for name in names if name != "stem"]
    return rest if len(rest) <= 4 else list(dict.fromkeys(name.split(".")[0] for name in rest))
