"""The tables in ``explain/design-space.md``: from the code, and from the kept results of its commands.

Each stands between two comments that name it; `tables.py` writes them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from internimage.cli.design.ablate import ablation_table
from internimage.cli.design.count import savings_table
from internimage.cli.design.options import markdown_table
from internimage.cli.design.scale import published_table, steps_table
from internimage.cli.design.search import search_table
from internimage.cli.design.space import space_table
from internimage.model import InternImageConfig
from internimage.model.design.sharing import count_savings
from internimage.structures import DesignCost, SearchedDesign, TrainedForm

PAGE = "explain/design-space.md"
_DOCS = Path(__file__).resolve().parent
_RESULTS = _DOCS.parent / "benchmarks" / "results"
_BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

Table = tuple[list[str], list[list[str]]]


def _space() -> Table:
    costs = [_cost(each) for each in _kept("2026-11-29_design_space_cpu")["candidates"]]
    return space_table(costs)


def _cost(values: dict[str, Any]) -> DesignCost:
    known: dict[str, Any] = {field.name: values[field.name] for field in fields(DesignCost)}
    return DesignCost(**{**known, "numbers": tuple(known["numbers"])})


def _savings() -> Table:
    return savings_table(count_savings(InternImageConfig.from_variant("h"), 224))


def _ablation() -> Table:
    return ablation_table([TrainedForm.from_dict(each) for each in _kept("2026-11-29_ablation_cifar10")["forms"]])


def _search() -> Table:
    return search_table([SearchedDesign.from_dict(each) for each in _kept("2026-11-29_search_cifar10")["designs"]])


_TABLES: dict[str, Callable[[], Table]] = {
    "space": _space,
    "published": published_table,
    "steps": steps_table,
    "savings": _savings,
    "ablation": _ablation,
    "search": _search,
}


def design_space_page() -> str:
    """The page with its tables as they are now."""

    def made(found: re.Match[str]) -> str:
        return f"{found[1]}\n{markdown_table(*_TABLES[found[2]]())}\n\n{found[3]}"

    return _BLOCK.sub(made, (_DOCS / PAGE).read_text(encoding="utf-8"))


def _kept(stem: str) -> Any:
    return json.loads((_RESULTS / f"{stem}.json").read_text(encoding="utf-8"))
