"""Frozen stages keep their weights to the last bit, and vary nothing; everything else learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from internimage import create_model
from internimage.training import first_stages

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*in eval mode at the start of training:UserWarning"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning"),
]


def is_frozen(name: str, count: int | None) -> bool:
    """By hand: the stem and the first stages, with what leads to the next."""
    beginnings = ["stem.", *(f"stages.{stage}." for stage in range(count or 0))]
    return count is not None and name.removeprefix("network.").removeprefix("backbone.").startswith(tuple(beginnings))


class Look(Callback):
    """The weights before the first step, and what trains."""

    def __init__(self) -> None:
        self.before: dict[str, torch.Tensor] = {}
        self.modes: dict[str, bool] = {}

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.before = self.before or {name: each.detach().clone() for name, each in pl_module.named_parameters()}
        self.modes = {name: module.training for name, module in pl_module.network.named_modules() if "stage" in name}


@pytest.mark.parametrize("count", [None, 0, 2, 4])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_what_is_frozen_stays(run: Any, count: int | None, checkpointing: bool) -> None:
    run.epochs, run.ema, run.callbacks = 1, 0.5, [look := Look()]
    run.options = {"drop_path_rate": 0.5, "gradient_checkpointing": checkpointing}
    run.optimizer = {"frozen_stages": count, "weight_decay": 0.5}
    run.fit()
    for name, after in run.task.named_parameters():
        assert torch.equal(after, look.before[name]) == is_frozen(name, count), name
    for name, training in look.modes.items():
        if name != "backbone.stages":
            assert training != is_frozen(f"{name}.", count), name


def test_a_state_of_other_parameters_is_refused(run: Any) -> None:
    run.epochs = 1
    run.fit()
    run.epochs, run.optimizer = 2, {"frozen_stages": 2}
    with pytest.raises(ValueError, match=r"other parameters learned .* set optimizer.frozen_stages as it was"):
        run.fit(resume=True)


@pytest.mark.parametrize("count", [-1, 5])
def test_a_count_that_no_backbone_has(run: Any, count: int) -> None:
    run.optimizer = {"frozen_stages": count}
    with pytest.raises(ValueError, match=rf"0 \(the stem alone\) to 4 .* got {count}"):
        run.fit()


def test_a_network_without_a_backbone() -> None:
    with pytest.raises(ValueError, match="Linear holds no InternImage backbone"):
        first_stages(torch.nn.Linear(2, 2), 1)


def test_a_frozen_network_gives_the_gradients_of_a_free_one() -> None:
    torch.manual_seed(0)
    free = create_model("internimage_femto", num_classes=3)
    frozen = create_model("internimage_femto", num_classes=3)
    frozen.load_state_dict(free.state_dict())
    for part in first_stages(frozen, 2):
        part.requires_grad_(False)
    image_NCHW = torch.randn(2, 3, 64, 64)
    for model in (free, frozen):
        model(image_NCHW).square().sum().backward()
    for (name, mine), theirs in zip(frozen.named_parameters(), free.parameters(), strict=True):
        if is_frozen(name.removeprefix("backbone."), 2):
            assert mine.grad is None, name
        else:
            torch.testing.assert_close(mine.grad, theirs.grad)
