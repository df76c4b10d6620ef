"""`internimage fit --print_groups` says what would learn how fast, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from internimage.cli.training.groups import in_short

Program = Callable[..., Any]
pytestmark = pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
OPTIMIZER = "--model.init_args.optimizer"


def test_each_group_has_a_line(program: Program) -> None:
    result = program(
        *("fit", "--config", "smoke/classification", "--print_groups", "--run", "run"),
        *(f"{OPTIMIZER}.layer_decay", "0.5", f"{OPTIMIZER}.frozen_stages", "1", f"{OPTIMIZER}.lr", "8e-3"),
        *(f"{OPTIMIZER}.offset_lr_scale", "0.1"),
    )
    assert result.status == 0, result.err
    lines = result.out.splitlines()
    assert lines[0].split()[-1] == "layers"
    # Five blocks; the last learns at the full rate, the second at an eighth; the stem and the first stage are frozen.
    rates = [line.split()[:2] for line in lines[1:] if line and line[0].isdigit() and "parameters" not in line]
    assert rates[0] == ["8.000e-03", "1.0000"]
    assert ["1.000e-03", "0.1250"] in rates
    assert ["1.000e-04", "0.0125"] in rates, "offsets learn at a tenth"
    assert any(
        line.startswith("frozen") and line.endswith("stem, stage 1 (block 1, norm, downsample)") for line in lines
    )
    sizes = [int(line.split()[3].replace(",", "")) for line in lines[1:] if line[:1].isdigit() and "learn" not in line]
    assert lines[-1] == f"{sum(sizes):,} parameters learn"
    assert not Path("run").exists()


def test_layers_in_short() -> None:
    names = [f"network.backbone.stages.2.blocks.{block}.norm1.weight" for block in (0, 2)]
    assert in_short([*names, "network.fpn.a.weight"]) == "stage 3 (blocks 1, 3), fpn.a"
    assert in_short([f"network.{part}.weight" for part in ("a.x", "a.y", "a.z", "b.x", "b.y")]) == "a, b"
