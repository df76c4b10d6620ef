"""The benchmark of the separable branch: the same work for everybody, and wrong results found out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from benchmarks.dcnv3 import Case
from benchmarks.on_gpu.branch_suite import LAYERS, LAYERS_COMPILED, OURS, Work, branch_bytes
from benchmarks.on_gpu.clock import wall_clock
from benchmarks.on_gpu.extensions import Peers
from benchmarks.on_gpu.measuring import Setup, measure
from benchmarks.on_gpu.operator_suite import Stage, stages
from torch import Tensor, nn

from benchmarks.on_gpu import branch_suite
from internimage import InternImageConfig, create_model
from internimage.ops.branch import depthwise_branch

CPU = torch.device("cpu")
SETUP = Setup(CPU, Peers({}, Path("unused"), CPU), wall_clock, 1e9, quick=True, rounds=2)


class FakeGpu(Setup):
    """A CPU that takes the way of a GPU."""

    @property
    def on_cpu(self) -> bool:
        return False


def test_everybody_does_the_same_in_both_types_with_both_kinds_of_parameters() -> None:
    findings = [measure(trial, SETUP) for trial in branch_suite.trials(SETUP)]
    assert [tuple(finding.key[name] for name in ("dtype", "parameters", "passes")) for finding in findings] == [
        (dtype, parameters, passes)
        for dtype in ("float16", "bfloat16")
        for parameters in ("float32", dtype)
        for passes in ("forward", "both")
    ]
    for finding in findings:
        assert [row.name for row in finding.rows] == [OURS, LAYERS]
        assert finding.agrees
        assert len(finding.agreements) == 12, "each one's output and five gradients"
        assert set(finding.shares) == {OURS, LAYERS}


def test_the_layers_are_compiled_too(monkeypatch: pytest.MonkeyPatch) -> None:
    small = Stage("t", 1, Case("a small map", 1, 6, 5, 2, 8, torch.bfloat16, CPU))
    options: list[dict[str, Any]] = []

    real = torch.compile

    def without_inductor(function: Any, **given: Any) -> Any:
        options.append(given)
        return real(function, backend="eager", **given)

    monkeypatch.setattr(torch, "compile", without_inductor)
    monkeypatch.setattr(branch_suite, "stages", lambda setup: [small])
    gpu = FakeGpu(CPU, SETUP.peers, wall_clock, 1e9, quick=True, rounds=2)
    cast(Any, torch)._dynamo.reset()
    findings = [measure(trial, gpu) for trial in branch_suite.trials(gpu)]
    assert [[row.name for row in finding.rows] for finding in findings] == [[OURS, LAYERS, LAYERS_COMPILED]] * 4
    assert options == [{"fullgraph": True, "dynamic": False}] * 2


@pytest.mark.parametrize("wrong", ["activation", "bias"])
def test_another_result_is_refused(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(x: Tensor, weight: Tensor, bias: Tensor, norm_weight: Tensor, norm_bias: Tensor, eps: float) -> Tensor:
        activation = "relu" if wrong == "activation" else "gelu"
        bias = 2 * bias if wrong == "bias" else bias
        return depthwise_branch(x, weight, bias, norm_weight, norm_bias, eps, activation)

    monkeypatch.setattr(branch_suite, "depthwise_branch", other)
    finding = measure(next(branch_suite.trials(SETUP)), SETUP)
    assert [row.name for row in finding.rows if row.ratio is not None] == []
    assert (finding.rows[0].refused or "").startswith(f"refused: wrong result of {OURS}: output")


@pytest.mark.parametrize("autocast", [True, False])
def test_ours_gives_what_the_next_layers_read(autocast: bool) -> None:
    stage = Stage("t", 1, Case("a small map", 1, 6, 5, 2, 8, torch.bfloat16, CPU))
    work = Work(stage, autocast)
    inputs = work.inputs()
    assert inputs[0].dtype == torch.bfloat16
    assert {tensor.dtype for tensor in inputs[1:]} == {torch.float32 if autocast else torch.bfloat16}
    for maker in branch_suite._makers(work, inputs, compiled=False).values():
        output = maker()(*inputs)
        assert (output.dtype, output.shape) == (torch.bfloat16, (1, 6, 5, 16))
        assert output.is_contiguous()


def test_compulsory_bytes_of_b_s_third_stage() -> None:
    gpu = Setup(torch.device("cuda"), SETUP.peers, wall_clock, 1e9, dtypes=(torch.float16,))
    found = stages(gpu)
    assert len(found) == 8
    work = Work(found[6], autocast=True)
    channels = 4 * InternImageConfig.from_variant("b").channels
    assert (work.stage.variant, work.stage.number, work.channels) == ("b", 3, channels)
    maps, parameters = 64 * 14 * 14 * channels * 2, (9 + 1 + 2) * channels * 4
    assert work.moved(backward=False) == 2 * maps + parameters
    assert work.moved(backward=True) == 5 * maps + 3 * parameters
    assert branch_bytes(64 * 14 * 14, channels, 2, 2, backward=False) == 2 * maps + parameters // 2


def test_the_work_is_that_of_the_network() -> None:
    """Kernel, epsilon and activation of the branch in a network's layer."""
    modules = create_model("internimage_femto").named_modules()
    layer = cast(Any, next(module for name, module in modules if name.endswith(".dcn")))
    found = layer.dw_conv.weight.shape[1:], layer.dw_norm.eps, type(layer.act)
    weight = Work(stages(SETUP)[0], autocast=True).inputs()[1]
    assert found == (weight.shape[1:], branch_suite.NORM_EPS, nn.GELU)
