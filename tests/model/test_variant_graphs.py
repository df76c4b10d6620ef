"""Every variant is one graph with open sizes. On the meta device: shapes without numbers, so 3 billion weights fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from internimage import create_model, list_models
from internimage.model import InternImageClassifier

SMALLEST, *LARGER = list_models()
# Up to a minute for each of the others, as they are.
COMPILED = [SMALLEST, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGER)]
# One of each other form with few blocks: with layer scale and post-norm, with DCNv4, and the largest head.
FEW = {"depths": (1, 1, 2, 1)}
EXPORTED = [
    (SMALLEST, {}),
    ("internimage_s", FEW),
    ("flash_internimage_s", FEW),
    ("internimage_h", {**FEW, "level2_post_norm_blocks": (1,)}),
    *(pytest.param(name, {}, marks=pytest.mark.slow) for name in LARGER),
]
SIZES = ((2, 96, 80), (3, 64, 128), (5, 75, 109))


def build(name: str, **changes: Any) -> InternImageClassifier:
    with torch.device("meta"):
        return create_model(name, **changes).eval()


def images(batch: int, height: int, width: int) -> torch.Tensor:
    return torch.empty(batch, 3, height, width, device="meta")


@pytest.mark.parametrize("name", COMPILED)
def test_compiles_once_for_all_sizes(name: str) -> None:
    model = build(name)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    with torch.inference_mode():
        compiled(images(*SIZES[0]))
        with torch.compiler.set_stance("fail_on_recompile"):
            assert [tuple(compiled(images(*size)).shape) for size in SIZES] == [(size[0], 1000) for size in SIZES]


@pytest.mark.parametrize(("name", "changes"), EXPORTED, ids=lambda each: each if isinstance(each, str) else len(each))
def test_exports_as_one_program_with_open_sizes(name: str, changes: dict[str, Any]) -> None:
    model, dynamic = build(name, **changes), torch.export.Dim.DYNAMIC
    program = torch.export.export(model, (images(*SIZES[0]),), dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},))
    (image,) = (node.meta["val"] for node in program.graph.nodes if node.name in program.graph_signature.user_inputs)
    assert [isinstance(size, int) for size in image.shape] == [False, True, False, False]
    operators = [node for node in program.graph.nodes if node.target is torch.ops.internimage.dcnv3.default]
    assert len(operators) == sum(model.config.depths)
    for size in SIZES[1:]:
        assert tuple(program.module()(images(*size)).shape) == (size[0], 1000)
