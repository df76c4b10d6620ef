"""FlashInternImage against the released code beyond maps and logits: odd sizes, and what its first layer says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, safe_open
from torch import Tensor

from internimage import DCNv4, InternImageConfig, create_model
from internimage.model.checkpoints.convert import to_official, to_ours
from internimage.model.sampling import trace_sampling
from support.compare import TOLERANCE, relative_rms

pytestmark = [pytest.mark.usefixtures("poisoned_memory"), pytest.mark.shared]
LIMIT = TOLERANCE["golden"][0]


@torch.no_grad()
@pytest.mark.parametrize("name", ["flash_tlike", "flash_llike"])
def test_odd_sizes_and_the_inside_of_a_layer(name: str, golden: Path) -> None:
    path = golden / "flash" / f"{name}.safetensors"
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        arguments = json.loads(file.metadata()["config"]) | {"num_classes": 10}
    state = {key.removeprefix("state_dict."): each for key, each in tensors.items() if key.startswith("state_dict.")}
    state = {key: each.float() if each.is_floating_point() else each for key, each in state.items()}
    config = InternImageConfig.from_official(arguments)
    assert config.to_official() == arguments | {
        "num_classes": 10,
        "drop_rate": 0.0,
        "drop_path_rate": 0.2,
        "drop_path_type": "linear",
        "act_layer": "GELU",
        "norm_layer": "LN",
        "cls_scale": 1.5,
        "with_cp": False,
    }
    model = create_model(config).eval()
    converted = to_ours(state)
    model.load_state_dict(converted.state)
    assert all(torch.equal(each, state[key]) for key, each in to_official(converted.state).items())

    image = tensors["odd.input_NCHW"]
    found = [*model.backbone(image), model(image)]
    expected = [*(tensors[f"odd.features.{stage}_NCHW"] for stage in range(4)), tensors["odd.logits"]]
    errors = [relative_rms(*pair) for pair in zip(found, expected, strict=True)]

    seen: dict[str, Tensor] = {}
    dcn = model.backbone.stages[0].blocks[0].dcn
    assert isinstance(dcn, DCNv4)
    for layer, key in ((dcn.offset_mask, "offset_mask"), (dcn, "output")):
        layer.register_forward_hook(lambda _, inputs, out, key=key: seen.update({key: out, f"{key}_from": inputs[0]}))
    model(tensors["input_NCHW"])
    for mine, theirs in (
        (seen["output_from"], "dcn_input"),
        (seen["offset_mask"], "offset_mask"),
        (seen["output"], "dcn_output"),
    ):
        errors.append(relative_rms(mine.flatten(1, 2), tensors[f"internal.level0_block0_{theirs}_BLC"]))
    assert max(errors) <= LIMIT, errors

    # The pictures of where a network looks go by the same numbers, which are of either sign, as shares.
    rows = seen["offset_mask"][0]
    first = trace_sampling(model, tensors["input_NCHW"][:1]).blocks[0]
    second_group = rows[..., 27 + 18 : 54]
    assert second_group.min() < 0 < second_group.max()
    shares = second_group.abs() / second_group.abs().sum(-1, keepdim=True)
    torch.testing.assert_close(torch.from_numpy(first.modulations)[:, :, 1], shares)
    offsets = rows[..., 27 : 27 + 18].unflatten(-1, (9, 2))
    # The first point's place, two columns to the right and one row down from the corner, as (x, y).
    moved = config.offset_scale * (torch.tensor([-1.0, -1.0]) + offsets[1, 2, 0]) + torch.tensor([2.0, 1.0])
    torch.testing.assert_close(torch.from_numpy(first.positions_xy)[1, 2, 1, 0], 4 * moved)
