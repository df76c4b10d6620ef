"""Names, released weights and training as timm's tools see them."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import pytest
import torch

from internimage import list_models
from internimage.model import WEIGHTS
from internimage.model.weights import default_weights
from internimage.training import param_groups

timm = pytest.importorskip("timm")
from timm.models import _registry, get_pretrained_cfg, group_parameters  # noqa: E402
from timm.optim import create_optimizer_v2, param_groups_layer_decay  # noqa: E402

import internimage.integrations.timm as integration  # noqa: E402


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_is_enough() -> None:
    assert (
        run(
            "import timm, internimage; before = timm.list_models('*internimage*')\n"
            "import internimage.integrations.timm\n"
            "print(before, len(timm.list_models('*internimage*')))"
        )
        == f"[] {len(list_models())}"
    )


def test_without_timm_the_error_says_what_to_install() -> None:
    printed = run(
        "import sys; sys.modules['timm'] = None\n"
        "try: import internimage.integrations.timm\n"
        "except ImportError as error: print(error)"
    )
    assert "pip install internimage-torch[timm]" in printed


def test_lists() -> None:
    assert set(timm.list_models("*internimage*")) == set(list_models())
    assert set(timm.list_models(module="internimage")) == set(list_models())
    assert set(timm.list_pretrained("*internimage*")) == set(WEIGHTS)
    assert timm.list_models("internimage_femto", pretrained=True) == []


def test_registering_twice_changes_nothing() -> None:
    before = timm.models.model_entrypoint("internimage_t")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        integration.register()
    assert timm.models.model_entrypoint("internimage_t") is before


def test_registering_brings_back_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(_registry._model_entrypoints, "internimage_s")
    assert "internimage_s" not in timm.list_models()
    integration.register()
    assert "internimage_s" in timm.list_models()
    assert timm.create_model("internimage_s", device="meta").num_classes == 1000


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_those_of_our_table(name: str) -> None:
    row, cfg = WEIGHTS[name], get_pretrained_cfg(name)
    assert cfg is not None
    assert f"{cfg.architecture}.{cfg.tag}" == name
    assert (cfg.hf_hub_id, cfg.hf_hub_filename, cfg.license) == (row.repository, row.file, "mit")
    assert (cfg.num_classes, cfg.input_size) == (row.num_classes, (3, row.image_size, row.image_size))
    default = get_pretrained_cfg(row.model)
    assert default is not None
    assert f"{row.model}.{default.tag}" == default_weights(row.model).name


def test_names_that_do_not_exist() -> None:
    with pytest.raises(RuntimeError, match="Invalid pretrained tag"):
        timm.create_model("internimage_t.in12k", device="meta")
    with pytest.raises(RuntimeError, match="No pretrained weights exist for internimage_femto"):
        timm.create_model("internimage_femto", pretrained=True)


@pytest.mark.parametrize("name", list_models())
def test_layer_decay_is_that_of_our_own_training(name: str) -> None:
    model: Any = timm.create_model(name, device="meta")
    ours = {
        key: (group["lr"], group["weight_decay"])
        for group in param_groups(model, lr=1.0, weight_decay=0.05, depths=model.config.depths, layer_decay=0.9)
        for key in group["names"]
    }
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    groups = param_groups_layer_decay(
        model, weight_decay=0.05, layer_decay=0.9, no_weight_decay_list=model.no_weight_decay()
    )
    theirs = {
        names[id(parameter)]: (pytest.approx(group["lr_scale"]), group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }
    assert ours == theirs
    layers = group_parameters(model, model.group_matcher())
    assert sorted(layers) == list(range(sum(model.config.depths)))
    coarse = group_parameters(model, model.group_matcher(coarse=True), reverse=True)
    assert len(set(coarse.values())) == 6
    assert coarse["backbone.stem.conv1.weight"] == 0
    assert coarse["head.fc.bias"] == 5


def test_a_step_of_timms_optimizer() -> None:
    model: Any = timm.create_model("internimage_femto", num_classes=3)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-2, weight_decay=0.05, layer_decay=0.8)
    before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    torch.nn.functional.cross_entropy(model(torch.rand(4, 3, 64, 64)), torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()
    still = {key for key, parameter in model.named_parameters() if torch.equal(parameter, before[key])}
    # Offsets and weights of sampling points start at zero, so that what they are computed from has no gradient yet.
    assert {key.split(".dcn.")[-1].split(".")[0] for key in still} <= {"dw_conv", "dw_norm"}


def test_checkpointing_recomputes_and_changes_nothing() -> None:
    model: Any = timm.create_model("internimage_femto", num_classes=3).train()
    images, calls = torch.rand(2, 3, 64, 64), []
    model.backbone.stages[2].blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))

    def gradients() -> tuple[list[torch.Tensor], int]:
        model.zero_grad()
        calls.clear()
        model(images).square().sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters()], len(calls)

    plain, once = gradients()
    model.set_grad_checkpointing(True)
    again, twice = gradients()
    model.set_grad_checkpointing(False)
    assert (once, twice, gradients()[1]) == (1, 2, 1)
    for ours, theirs in zip(again, plain, strict=True):
        torch.testing.assert_close(ours, theirs)
