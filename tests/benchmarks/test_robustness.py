"""The peer is trained by our engine, and measured beside the shipped weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks import peer, robustness
from internimage import Classifier
from internimage.data import load_sample_arrays
from internimage.visualization.curves import read_rows

pytestmark = [
    pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*(does not have many workers|args parameter|logging interval):UserWarning"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of clothes under the names of CIFAR-10's classes."""
    folder, names = tmp_path_factory.mktemp("set"), Classifier(device="cpu").labels
    arrays, labels = load_sample_arrays("test")
    for index in range(100):
        split = ("train", "train", "val", "test")[index // 10 % 4]
        path = folder / split / names[int(labels[index])] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(arrays[index]).convert("RGB").resize((32, 32)).save(path)
    return folder


def test_the_peer_has_our_size_and_our_maps() -> None:
    ours, network = Classifier(device="cpu").model, peer.build_peer()
    counts = [sum(each.numel() for each in model.parameters()) for model in (ours, network)]
    assert 0.95 < counts[1] / counts[0] < 1.05
    sides: list[int] = []
    for stage in network.stages:  # pyright: ignore
        stage.register_forward_hook(lambda module, args, output: sides.append(output.shape[-1]))
    assert network.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert sides == [16, 8, 4, 2]


@pytest.mark.slow
def test_it_is_trained_and_measured(root: Path, tmp_path: Path) -> None:
    run = tmp_path / "peer"
    assert peer.main(["--root", str(root), "--run", str(run), "--epochs", "3"]) == 0
    assert len(read_rows(run / "metrics.csv")) == 3
    network, trained = peer.load_peer(run)
    assert trained.startswith("3 of 3 epochs")
    saved = torch.load(run / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(network.state_dict()["stem.0.weight"], saved["network.stem.0.weight"])
    command = ["--root", str(root), "--peer", str(run), "--images", "10", "--output", str(tmp_path / "results")]
    assert robustness.main(command) == 0
    (file,) = (tmp_path / "results").glob("*.json")
    ours, theirs = json.loads(file.read_text(encoding="utf-8"))["results"]
    assert (ours["name"], theirs["name"], ours["num_images"]) == ("InternImage-pico", "ConvNeXt", 10)
    assert file.with_suffix(".png").is_file()
    page = file.with_suffix(".md").read_text(encoding="utf-8")
    assert "| motion blur | " in page
    assert "| motion_blur | length, share of the side | 0.09 |" in page
