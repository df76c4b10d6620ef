"""DINO on a GPU that is there: run with ``pytest -m gpu``."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from internimage.model.detection import Objects
from internimage.model.detection.dino import InternImageDino

from .conftest import PLACES, TRUTHS

pytestmark = pytest.mark.gpu
Build = Callable[..., InternImageDino]
ON_GPU = [Objects(each.boxes.cuda(), each.labels.cuda()) if torch.cuda.is_available() else each for each in TRUTHS]


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Toys must not decide what this machine launches from now on: nothing is timed."""
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    monkeypatch.setenv("INTERNIMAGE_TUNE", "0")
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize("composite", [False, True])
def test_boxes_are_those_of_the_cpu(detector: Build, images: Tensor, composite: bool) -> None:
    model = detector(composite=composite).eval()
    with torch.no_grad():
        wanted = model(images, PLACES)
        found = model.cuda()(images.cuda(), PLACES)
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one.scores.cpu(), other.scores, atol=1e-4)
        assert torch.allclose(one.boxes.cpu()[:5], other.boxes[:5], atol=0.05)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_a_step_of_training(detector: Build, images: Tensor, dtype: torch.dtype | None) -> None:
    """Without copies nothing is random: the losses are those of the CPU, in 16 bit nearly."""
    model = detector(denoising_queries=0)
    wanted = model.losses(images, TRUTHS, PLACES)
    model.cuda()
    with torch.autocast("cuda", dtype, enabled=dtype is not None):
        found = model.losses(images.cuda(), ON_GPU, PLACES)
    torch.stack(list(found.values())).sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())
    for name, each in wanted.items():
        assert float(found[name].detach()) == pytest.approx(float(each.detach()), rel=1e-3 if dtype is None else 0.2)


def test_noisy_copies_on_a_gpu(detector: Build, images: Tensor) -> None:
    model = detector(federated_classes=1).cuda()
    losses = model.losses(images.cuda(), ON_GPU, PLACES)
    assert all(each.isfinite() for each in losses.values())
    assert losses["box_dn"] > 0
