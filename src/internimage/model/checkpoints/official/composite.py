"""Names of a composite backbone's weights: ours and the released ``CBInternImage``'s, in both directions.

Both InternImages inside are renamed as any other. The links are counted otherwise there: ``cb_linears.{i}.{n}`` reads
stage ``i + n``, where ours has that stage's own number. The gammas are attributes of the lead network there.

Source: detection/mmdet_custom/models/backbones/cbnet.py of InternImage, 31c962d.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from internimage.model.checkpoints.convert import BACKBONE_ROWS, Converted, Renamer
from internimage.model.config import NUM_STAGES

_BACKBONE, _STEM = "backbone.", "backbone.stem."
_TABLE: tuple[tuple[str, str], ...] = (
    *(("assisting." + ours.removeprefix(_BACKBONE), "cb_modules.0." + theirs) for ours, theirs in BACKBONE_ROWS),
    *(
        ("lead." + ours.removeprefix(_BACKBONE), "cb_modules.1." + theirs)
        for ours, theirs in BACKBONE_ROWS
        if not ours.startswith(_STEM)
    ),
    *((f"gammas.{i}", f"cb_modules.1.gamma{i}") for i in range(NUM_STAGES)),
    *((f"links.{i}.{j}*", f"cb_linears.{i}.{j - i}*") for i in range(NUM_STAGES) for j in range(i + 1, NUM_STAGES)),
)
_FROM_OFFICIAL, _TO_OFFICIAL = Renamer((theirs, ours) for ours, theirs in _TABLE), Renamer(_TABLE)
_OURS_MARKS = ("assisting.stages.0.blocks.0.norm1.weight", "lead.stages.0.blocks.0.norm1.weight")
_OFFICIAL_MARKS = tuple(f"cb_modules.{number}.levels.0.blocks.0.norm1.0.weight" for number in range(2))


def holds_composite(keys: Iterable[str]) -> bool:
    """Whether these are a composite backbone's weights, ours or the released code's, under whatever prefix."""
    return _origin_and_prefix(keys) is not None


def composite_to_ours(state: Mapping[str, Tensor]) -> Converted:
    """Weights of a composite backbone, or of a detector with one, under our names.

    Args:
        state: the released code's names, or ours, under whatever prefix.

    Returns:
        The backbone's weights (``backbone.assisting.*``, ``backbone.lead.*``, ``backbone.links.*``,
        ``backbone.gammas.*``), and the keys of all else.

    Raises:
        ValueError: no composite backbone is among them.
    """
    if (found := _origin_and_prefix(state)) is None:
        some = ", ".join(list(state)[:3]) or "nothing"
        raise ValueError(f"these are not a composite backbone's weights: no {_OFFICIAL_MARKS[1]} ({some} ...)")
    origin, prefix = found
    converted: dict[str, Tensor] = {}
    foreign: list[str] = []
    for key, tensor in state.items():
        inner = key.removeprefix(prefix)
        # Our own names are those that the table knows on its other side.
        new = _FROM_OFFICIAL(inner) if origin == "official" else inner if _TO_OFFICIAL(inner) else None
        if new is None or not key.startswith(prefix):
            foreign.append(key)
        else:
            converted[_BACKBONE + new] = tensor
    return Converted(converted, tuple(foreign), origin)


def composite_to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our composite backbone's weights under the released code's names (``cb_modules.*``, ``cb_linears.*``).

    Raises:
        ValueError: weights that have no name there.
    """
    renamed = {key: _TO_OFFICIAL(key.removeprefix(_BACKBONE)) for key in state}
    if unknown := [key for key, new in renamed.items() if new is None]:
        raise ValueError(f"these weights have no name in the released composite backbone: {', '.join(unknown[:5])}")
    return {str(renamed[key]): tensor for key, tensor in state.items()}


def _origin_and_prefix(keys: Iterable[str]) -> tuple[str, str] | None:
    known = dict.fromkeys(keys)
    for marks, origin in ((_OFFICIAL_MARKS, "official"), (_OURS_MARKS, "ours")):
        for key in known:
            prefix = key.removesuffix(marks[0])
            if prefix != key and (not prefix or prefix.endswith(".")) and prefix + marks[1] in known:
                return origin, prefix
    return None
