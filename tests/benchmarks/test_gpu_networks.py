"""What the network suites do on a GPU, with small networks on a CPU in everybody's place."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.networks import random_images, scatter_sampling
from benchmarks.on_gpu import network_suite, training_suite
from benchmarks.on_gpu.clock import wall_clock
from benchmarks.on_gpu.extensions import Missing, Peers
from benchmarks.on_gpu.measuring import Setup, Trial, measure
from benchmarks.on_gpu.network_suite import Networks
from benchmarks.on_gpu.targets import judge
from torch import Tensor, nn

from internimage import create_model

CPU = torch.device("cpu")
MODULES = ("checkouts", "clock", "kernels", "measuring", "page", "patches", "training_suite", "tune_suite")


class FakeGpu(Setup):
    """A CPU that takes the way of a GPU."""

    @property
    def on_cpu(self) -> bool:
        return False


class NoBfloat16(nn.Module):
    """As the official kernel: bfloat16 is not implemented."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        if torch.get_autocast_dtype("cpu") == torch.bfloat16:
            raise RuntimeError("not implemented for 'BFloat16'")
        return self.network(images)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    torch.manual_seed(0)
    ours = scatter_sampling(create_model("internimage_femto"))

    def build(trial: Trial, variant: str, setup: Setup) -> Networks:
        others = {network_suite.OFFICIAL: NoBfloat16(ours), network_suite.CONVNEXT: ours}
        with trial.attempt(network_suite.FLASH):
            raise Missing("no path given (--dcnv4 PATH)")
        return Networks(ours, others)

    def small(batch: int, channels: int, size: int, device: torch.device) -> Tensor:
        return random_images(batch, channels, 32, device)

    def as_it_is(module: Any, **options: Any) -> Any:
        return module

    monkeypatch.setattr(torch, "compile", as_it_is)
    for suite in (network_suite, training_suite):
        monkeypatch.setattr(suite, "build_networks", build)
        monkeypatch.setattr(suite, "random_images", small)
    monkeypatch.setattr(network_suite, "_graph_call", network_suite.eager_call)
    return FakeGpu(CPU, Peers({}, Path("unused"), CPU), wall_clock, 1e9, quick=True, rounds=2)


def test_inference_is_compared_as_written_and_then_compiled(gpu: FakeGpu) -> None:
    findings = [measure(trial, gpu) for trial in network_suite.trials(gpu)]
    assert [(f.key["variant"], f.key["dtype"], f.key["mode"]) for f in findings[:4]] == [
        ("b", "float16", "as written"),
        ("b", "float16", "compiled"),
        ("b", "bfloat16", "as written"),
        ("b", "bfloat16", "compiled"),
    ]
    assert len(findings) == 8
    names = [[row.name for row in finding.rows] for finding in findings[:3]]
    written = [network_suite.EAGER, network_suite.OFFICIAL, network_suite.CONVNEXT]
    assert names[0] == written
    assert names[1] == [*written, network_suite.COMPILED, network_suite.GRAPH, network_suite.CONVNEXT_COMPILED]
    assert names[2] == [network_suite.EAGER, network_suite.CONVNEXT]
    assert "BFloat16" in (findings[2].why_missing(network_suite.OFFICIAL) or "")
    assert all(finding.agrees for finding in findings)
    assert len(findings[1].agreements) == 4, "ours thrice, and the official network"
    verdict = judge(findings, quick=False)[5]
    assert verdict.status != "met", "FlashInternImage is missing"
    assert "no path given" in verdict.detail


def test_training_takes_float16_where_a_kernel_has_no_bfloat16(gpu: FakeGpu) -> None:
    written, compiled = (measure(trial, gpu) for trial in training_suite.trials(gpu))
    assert [row.name for row in written.rows] == [
        network_suite.EAGER,
        training_suite.EAGER_HALF,
        network_suite.OFFICIAL,
        network_suite.CONVNEXT,
    ]
    assert [row.name for row in compiled.rows][4:] == [network_suite.COMPILED, network_suite.CONVNEXT_COMPILED]
    (note,) = [line for line in written.notes if "gradient scaling" in line]
    assert "in bfloat16: RuntimeError: not implemented for 'BFloat16'" in note
    assert written.agrees
    assert compiled.agrees
    assert [agreement.name for agreement in compiled.agreements] == [
        network_suite.EAGER,
        network_suite.EAGER,
        training_suite.EAGER_HALF,
        network_suite.COMPILED,
    ]
    assert judge([written, compiled], quick=False)[4].status in ("met", "missed")


def test_other_weights_are_found_out(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    other = scatter_sampling(create_model("internimage_femto"))
    monkeypatch.setattr(
        network_suite, "_graph_call", lambda network, images, dtype: network_suite.eager_call(other, images, dtype)
    )
    _, compiled = (measure(trial, gpu) for trial in list(network_suite.trials(gpu))[:2])
    refused = [row.name for row in compiled.rows if row.refused]
    assert refused == [network_suite.GRAPH]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"benchmarks.on_gpu.{name}"), optionflags=doctest.ELLIPSIS)
    assert found.failed == 0
