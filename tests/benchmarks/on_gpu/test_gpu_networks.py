"""What the network suites do on a GPU, with small networks on a CPU in everybody's place."""

from __future__ import annotations

import doctest
import importlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from benchmarks.memory import Memory
from benchmarks.networks import random_images, scatter_sampling
from benchmarks.on_gpu.clock import wall_clock
from benchmarks.on_gpu.extensions import Missing, Peers
from benchmarks.on_gpu.measuring import LONG_BUDGET_S, Setup, Trial, measure
from benchmarks.on_gpu.network_suite import Networks
from benchmarks.on_gpu.targets import judge
from torch import Tensor, nn

from benchmarks.on_gpu import network_suite, training_suite
from internimage import create_model

CPU = torch.device("cpu")
MODULES = (
    "branch_suite",
    "checkouts",
    "clock",
    "kernels",
    "measuring",
    "page",
    "patches",
    "training_suite",
    "tune_suite",
)


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
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[Any]]]:
    """The inputs of every graph that torch.compile makes; it traces as ever, and what it traced runs as it is."""
    found: list[list[Any]] = []

    def backend(graph: Any, inputs: list[Any]) -> Callable[..., Any]:
        found.append(inputs)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    cast(Any, torch)._dynamo.reset()
    yield found
    cast(Any, torch)._dynamo.reset()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, graphs: list[list[Any]]) -> FakeGpu:
    torch.manual_seed(0)
    ours = scatter_sampling(create_model("internimage_femto"))

    def build(trial: Trial, variant: str, setup: Setup) -> Networks:
        others = {network_suite.OFFICIAL: NoBfloat16(ours), network_suite.CONVNEXT: ours}
        with trial.attempt(network_suite.FLASH):
            raise Missing("no path given (--dcnv4 PATH)")
        return Networks(ours, others)

    def small(batch: int, channels: int, size: int, device: torch.device) -> Tensor:
        return random_images(batch, channels, 32, device)

    for suite in (network_suite, training_suite):
        monkeypatch.setattr(suite, "build_networks", build)
        monkeypatch.setattr(suite, "random_images", small)
    monkeypatch.setattr(network_suite, "_graph_call", network_suite.eager_call)
    return FakeGpu(CPU, Peers({}, Path("unused"), CPU), wall_clock, 1e9, quick=True, rounds=2, variants=("b",))


@pytest.mark.slow
def test_inference_is_compared_as_written_and_then_compiled(gpu: FakeGpu, graphs: list[list[Any]]) -> None:
    trials = list(network_suite.trials(gpu))
    assert [trial.budget_s for trial in trials[:3]] == [None, LONG_BUDGET_S, LONG_BUDGET_S]
    findings = [measure(trial, gpu) for trial in trials]
    assert [(f.key["variant"], f.key["dtype"], f.key["mode"]) for f in findings] == [
        ("b", dtype, mode) for dtype in ("float16", "bfloat16") for mode in ("as written", "compiled", "everybody")
    ]
    names = [[row.name for row in finding.rows] for finding in findings[:4]]
    written = [network_suite.EAGER, network_suite.OFFICIAL, network_suite.CONVNEXT]
    compiled = [network_suite.COMPILED, network_suite.CONVNEXT_COMPILED]
    assert names[:3] == [written, [*written, *compiled], [*written, *compiled, network_suite.GRAPH]]
    assert names[3] == [network_suite.EAGER, network_suite.CONVNEXT]
    assert {len(each) for inputs in graphs for each in inputs if each.shape[1:] == (3, 32, 32)} == {8}
    assert "BFloat16" in (findings[3].why_missing(network_suite.OFFICIAL) or "")
    assert all(finding.agrees for finding in findings)
    assert len(findings[2].agreements) == 4, "ours thrice, and the official network"
    graph = findings[2].row(network_suite.GRAPH)
    assert graph is not None
    assert graph.memory is None, "the allocator does not see what the graph keeps"
    assert all(row.memory is not None for row in findings[1].rows)
    verdict = judge(findings, quick=False)[5]
    assert verdict.status != "met", "FlashInternImage is missing"
    assert "no path given" in verdict.detail


@pytest.mark.slow
def test_training_takes_float16_where_a_kernel_has_no_bfloat16(gpu: FakeGpu, graphs: list[list[Any]]) -> None:
    trials = list(training_suite.trials(gpu))
    assert [trial.budget_s for trial in trials] == [LONG_BUDGET_S] * 2
    written, compiled = (measure(trial, gpu) for trial in trials)
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
    assert "the whole batch" in compiled.agreements[-1].what
    assert judge([written, compiled], quick=False)[4].status in ("met", "missed")
    # What was checked is what is timed: nothing is compiled for another batch, and no size is variable.
    assert {len(each) for inputs in graphs for each in inputs if each.shape[1:] == (3, 32, 32)} == {16}
    assert all(isinstance(each, Tensor) for inputs in graphs for each in inputs)


def test_other_weights_are_found_out(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    other = scatter_sampling(create_model("internimage_femto"))
    monkeypatch.setattr(
        network_suite, "_graph_call", lambda network, images, dtype: network_suite.eager_call(other, images, dtype)
    )
    *_, trial = islice(network_suite.trials(gpu), 3)
    everybody = measure(trial, gpu)
    refused = [row.name for row in everybody.rows if row.refused]
    assert refused == [network_suite.GRAPH]


class Card:
    """A GPU for InternImage-H, on which some batches do not fit, or no longer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, gib: float, capacity: int, error: str) -> None:
        self.shares: list[float] = []
        self.tried: list[int] = []
        self.lost: list[int] = []
        total = int(gib * 2**30)
        fake = {
            "get_device_properties": lambda device: SimpleNamespace(total_memory=total),
            "set_per_process_memory_fraction": lambda share, device: self.shares.append(share * gib),
        }
        for name, value in fake.items():
            monkeypatch.setattr(torch.cuda, name, value)

        def build_measured(build: Any, device: torch.device) -> tuple[Callable[[], object], Memory]:
            batch = len(build.args[1])
            if batch > capacity or (batch in self.lost and batch in self.tried):
                self.tried.append(batch)
                raise RuntimeError(error)
            self.tried.append(batch)
            return int, Memory(1.0, 2.0)

        femto = create_model("internimage_femto")
        monkeypatch.setattr(training_suite, "build_measured", build_measured)
        monkeypatch.setattr(training_suite, "create_model", lambda name, gradient_checkpointing: femto)

    def trial(self, setup: Setup) -> Trial:
        return next(training_suite.huge_trials(setup))


@pytest.mark.parametrize(
    "error",
    [
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "Triton Error [CUDA]: out of memory",
    ],
)
def test_whoever_says_that_memory_is_short_the_search_goes_on(
    error: str, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    card = Card(monkeypatch, 79.2, 1, error)
    trial = card.trial(gpu)
    assert trial.key["batch"] == "1"
    assert card.tried == [1, 2, 1], "the step of the largest batch is built again"
    assert card.shares == [pytest.approx(78.0)]


def test_other_errors_are_no_lack_of_memory(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Card(monkeypatch, 40.0, 1, "a mistake of ours").trial(gpu)
    assert trial.skipped == [(training_suite.HUGE, "RuntimeError: a mistake of ours")]


def test_a_batch_that_no_longer_fits_gives_way_to_a_smaller_one(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = FakeGpu(CPU, gpu.peers, wall_clock, 1e9, rounds=2)
    card = Card(monkeypatch, 40.0, 6, "CUDA out of memory")
    card.lost = [6, 5]
    trial = card.trial(setup)
    assert card.tried == [1, 2, 4, 8, 6, 7, 6, 5]
    assert trial.key["batch"] == "5"
    assert card.shares == [pytest.approx(39.0)], "a smaller card keeps some for the context"
    card.lost, card.tried = [1], [1]
    trial = card.trial(setup)
    assert trial.skipped == [(training_suite.HUGE, "out of GPU memory")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"benchmarks.on_gpu.{name}"), optionflags=doctest.ELLIPSIS)
    assert found.failed == 0
