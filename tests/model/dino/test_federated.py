"""Which classes count in a step of a federated set."""

from __future__ import annotations

import pytest
import torch

from internimage.model.detection.dino.federated import FederatedClasses


def chooser(frequencies: list[int], count: int, power: float = 0.5) -> FederatedClasses:
    made = FederatedClasses(len(frequencies), count, power)
    made.set_frequencies(frequencies)
    return made


def labels(*listed: list[int]) -> list[torch.Tensor]:
    return [torch.tensor(each, dtype=torch.int64) for each in listed]


def test_shown_classes_always_count_and_others_fill_up() -> None:
    federated = chooser([1, 2, 3, 4, 5, 6], 4)
    for seed in range(20):
        torch.manual_seed(seed)
        mask = federated(labels([5, 1], [], [1]))
        assert mask.dtype == torch.bool
        assert mask[[1, 5]].all()
        assert int(mask.sum()) == 4


@pytest.mark.parametrize(
    ("frequencies", "count", "shown", "expected"),
    [
        ([1, 1, 1], 2, [[0, 1, 2]], [True, True, True]),
        ([4, 0, 4, 0], 4, [[1]], [True, True, True, False]),
        ([0, 0], 2, [[]], [False, False]),
        ([3, 3], 50, [], [True, True]),
    ],
    ids=["more shown than asked for", "never in a picture", "nothing at all", "fewer classes than asked for"],
)
def test_by_hand(frequencies: list[int], count: int, shown: list[list[int]], expected: list[bool]) -> None:
    assert chooser(frequencies, count)(labels(*shown)).tolist() == expected


@pytest.mark.parametrize(("power", "share"), [(0.5, 0.25), (1.0, 0.1), (0.0, 0.5)])
def test_others_come_in_proportion_to_a_power_of_their_frequency(power: float, share: float) -> None:
    """Frequencies 1 and 9: one to three with the square root. 3,000 draws spread by less than 0.01."""
    torch.manual_seed(0)
    federated = chooser([1, 9, 100], 2, power)
    drawn = torch.stack([federated(labels([2])) for _ in range(3000)]).double().mean(0)
    assert drawn[0].item() == pytest.approx(share, abs=0.03)
    assert drawn.sum().item() == pytest.approx(2)


def test_a_seed_decides_and_no_file_holds_the_frequencies() -> None:
    federated = chooser(list(range(100)), 10)
    masks = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        masks.append(federated(labels([7])))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    assert federated.state_dict() == {}


def test_wrong_values_are_named() -> None:
    with pytest.raises(ValueError, match="at least one class a step, got count 0"):
        FederatedClasses(3, 0)
    with pytest.raises(ValueError, match="must be 0 or more, got nan"):
        FederatedClasses(3, 1, float("nan"))
    with pytest.raises(ValueError, match="there are 2 frequencies for 3 classes"):
        FederatedClasses(3).set_frequencies([1, 2])
    with pytest.raises(ValueError, match="must be 0 or more, got -1"):
        FederatedClasses(2).set_frequencies([1, -1])
