"""Counts against networks that are really built, and against a module whose kept bytes are counted by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from internimage.model import InternImageConfig, create_model
from internimage.model.design.cost import activation_bytes, kept_bytes, measure_latency, multiply_adds, parameter_count

CONFIGS = {
    "femto": InternImageConfig.from_variant("femto"),
    # An image of 40 pixels leaves odd maps; every stage has another depth.
    "uneven": InternImageConfig(channels=16, depths=(1, 3, 4, 2), groups=(2, 2, 8, 4), num_classes=7, in_chans=1),
    "s": InternImageConfig.from_variant("s"),
    "h": InternImageConfig.from_variant("h"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_counts_are_those_of_the_whole_network(name: str) -> None:
    config = CONFIGS[name]
    with torch.device("meta"):
        network = create_model(config).eval()
        image = torch.empty(1, config.in_chans, 40, 40)
    assert parameter_count(config) == sum(each.numel() for each in network.parameters())
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image)
    assert multiply_adds(config, 40) == counter.get_total_flops() // 2


class Hand(nn.Module):
    """Keeps for its backward pass: x, x + 1 (once, though two layers need it) and the mask of a ReLU, its result."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 5), nn.Linear(3, 7)

    def forward(self, x: Tensor) -> Any:
        y = x + 1
        return self.first(y).relu(), self.second(y)


def test_kept_bytes_by_hand() -> None:
    # Four bytes; x + 1 has 2 * 3 numbers and the ReLU's result 2 * 5. x itself and the parameters are not counted.
    assert kept_bytes(Hand(), torch.ones(2, 3)) == 4 * (2 * 3 + 2 * 5)
    # Views of one storage are one storage.
    assert kept_bytes(nn.Sequential(nn.Flatten(), nn.Linear(6, 1)), torch.ones(2, 2, 3)) == 4 * 12


def test_activations_grow_with_images_and_pixels_and_less_is_kept_on_a_cpu() -> None:
    config = CONFIGS["femto"]
    one = activation_bytes(config, 32)
    assert activation_bytes(config, 32, batch=3) == 3 * one
    assert activation_bytes(config, 64) == pytest.approx(4 * one, rel=0.01)
    assert 0.6 < one / activation_bytes(config, 32, device="meta") < 0.85


def test_counting_leaves_random_numbers_alone() -> None:
    torch.manual_seed(0)
    wanted = torch.rand(1)
    torch.manual_seed(0)
    activation_bytes(CONFIGS["femto"], 32)
    assert torch.equal(torch.rand(1), wanted)


class Clock:
    """Says what a test wants, and which networks ran."""

    def __init__(self) -> None:
        self.now, self.ran = 0.0, []

    def __call__(self) -> float:
        return self.now


class Slow(nn.Module):
    def __init__(self, clock: Clock, name: str, seconds: float) -> None:
        super().__init__()
        self.clock, self.name, self.seconds = clock, name, seconds

    def forward(self, x: Tensor) -> Tensor:
        self.clock.now += self.seconds
        self.clock.ran.append(self.name)
        return x


def test_latency_is_measured_in_turns_forwards_and_backwards() -> None:
    clock = Clock()
    networks = {"a": Slow(clock, "a", 0.002), "b": Slow(clock, "b", 0.005)}
    threads = torch.get_num_threads()
    found = measure_latency(networks, torch.ones(1), repeats=3, warmup=2, threads=1, clock=clock)
    assert "".join(clock.ran) == "aabb" + "ab" + "ba" + "ab"
    assert found["b"].samples_ms == pytest.approx((5, 5, 5))
    assert found["a"].median_ms == pytest.approx(2)
    assert torch.get_num_threads() == threads


def test_what_can_not_be_measured() -> None:
    with pytest.raises(ValueError, match="at least one round, warm-up call and thread; got 0 networks"):
        measure_latency({}, torch.ones(1))
    with pytest.raises(ValueError, match="threads 0"):
        measure_latency({"a": nn.Identity()}, torch.ones(1), threads=0)
    with pytest.raises(ValueError, match="counted on cpu or meta, got cuda"):
        activation_bytes(CONFIGS["femto"], 32, device="cuda")
    with pytest.raises(ValueError, match=r"at least one pixel .* got 0 and 1"):
        multiply_adds(CONFIGS["femto"], 0)
