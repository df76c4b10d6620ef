"""Every variant is one graph with open sizes. On the meta device: shapes without numbers, so 3 billion weights fit."""

from __future__ import annotations

import pytest
import torch

from internimage import create_model, list_models
from internimage.model import InternImageClassifier
from internimage.model.variants import variant_config

SMALL = ("internimage_femto", "internimage_t")
# A minute for each of the largest.
COMPILED = [name if name in SMALL else pytest.param(name, marks=pytest.mark.slow) for name in list_models()]
# One of each form: without and with layer scale, post-norm, the largest head.
FORMS = (*SMALL, "internimage_s", "internimage_h")
EXPORTED = [name if name in FORMS else pytest.param(name, marks=pytest.mark.slow) for name in list_models()]
SIZES = ((2, 96, 80), (3, 64, 128), (5, 75, 109))


def build(name: str) -> InternImageClassifier:
    with torch.device("meta"):
        return create_model(name).eval()


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


@pytest.mark.parametrize("name", EXPORTED)
def test_exports_as_one_program_with_open_sizes(name: str) -> None:
    model, dynamic = build(name), torch.export.Dim.DYNAMIC
    program = torch.export.export(model, (images(*SIZES[0]),), dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},))
    (image,) = (node.meta["val"] for node in program.graph.nodes if node.name in program.graph_signature.user_inputs)
    assert [isinstance(size, int) for size in image.shape] == [False, True, False, False]
    operators = [node for node in program.graph.nodes if node.target is torch.ops.internimage.dcnv3.default]
    assert len(operators) == sum(variant_config(name).depths)
    for size in SIZES[1:]:
        assert tuple(program.module()(images(*size)).shape) == (size[0], 1000)
