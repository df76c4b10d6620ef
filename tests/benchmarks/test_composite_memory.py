"""The composite's memory: the page, and the steps that a GPU would run."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from benchmarks.composite_memory import _config, backbone, backbone_loss, counted, main, prepared, train


def test_the_page_holds_the_sum_of_every_precision(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--variant", "femto", "--height", "32", "--width", "64"]
    assert main(["--computed", *sizes, "--gpu_gb", "0.001", "--output", str(tmp_path)]) == 0
    page = capsys.readouterr().out
    found = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert found["computed"].keys() == {"32-true", "bf16-mixed", "bf16-true"}
    for name, terms in found["computed"].items():
        assert terms.pop("total") == sum(terms.values())
        assert f"- {name}: 0.0 GB does not fit into 0.001 GB\n" in page


def test_the_sum_agrees_with_real_tensors() -> None:
    by_sum, on_tensors = counted("femto", (33, 64))
    assert by_sum == pytest.approx(on_tensors, rel=0.01)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_the_measured_steps_train(precision: str) -> None:
    network, image_NCHW = prepared(partial(backbone, _config("femto")), (1, 3, 32, 32), precision, "cpu")
    before = network.lead.stages[3].blocks[0].mlp.fc1.weight.clone()
    assert train(network, backbone_loss, image_NCHW, precision) > 0
    assert not torch.equal(network.lead.stages[3].blocks[0].mlp.fc1.weight, before)
    with pytest.raises(ArithmeticError, match="the loss is nan"):
        train(network, lambda network, x: backbone_loss(network, x) * torch.nan, image_NCHW, precision)
