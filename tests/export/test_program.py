"""PyTorch's own files: a program with open sizes that other processes load, and a compiled package."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from export.scattered import CONFIGS, NETWORKS, network
from internimage.export import Agreement, export_package, export_program

LOADED = """
import sys, torch, internimage.ops.dcnv3
program = torch.export.load(sys.argv[1])
torch.save(program.module()(torch.load(sys.argv[2])), sys.argv[3])
print(sum("dcnv3" in str(node.target) for node in program.graph.nodes))
"""


@pytest.mark.parametrize("name", NETWORKS)
def test_a_program_in_another_process(name: str, tmp_path: Path) -> None:
    model, seen = network(name), list[Agreement]()
    path = export_program(model, tmp_path / "model.pt2", report=seen.append)
    assert [agreement.shape[0] for agreement in seen] == [1, 3, 2]
    image = torch.randn(1, 3, 47, 90)
    torch.save(image, tmp_path / "image.pt")
    arguments = [sys.executable, "-c", LOADED, path, tmp_path / "image.pt", tmp_path / "logits.pt"]
    printed = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout
    assert int(printed) == sum(CONFIGS[name].depths)
    with torch.inference_mode():
        torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), model(image), rtol=1e-5, atol=1e-5)


def test_files_are_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        export_program(network("t"), path)
    with pytest.raises(ValueError, match=r"end in \.pt2"):
        export_package(network("t"), tmp_path / "model.so")
    assert path.read_text() == "precious"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_a_package_compiled_ahead_of_time(tmp_path: Path) -> None:
    seen: list[Agreement] = []
    path = export_package(network("t"), tmp_path / "model.pt2", report=seen.append)
    assert all(agreement.holds for agreement in seen)
    assert len(seen) == 3
    assert path.stat().st_size > 1_000_000
