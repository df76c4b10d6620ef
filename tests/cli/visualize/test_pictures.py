"""``internimage visualize``: files that are there afterwards, and sentences where they can't be."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import internimage
from internimage.cli.visualize.receptive_field import _network
from internimage.data import sample_photo

Program = Callable[..., Any]
PICTURES = ("sampling", "reach", "entropy", "activation", "features", "receptive_field")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("what", PICTURES)
def test_a_photo_of_ones_own(program: Program, what: str) -> None:
    shutil.copy(sample_photo(), "mine.jpg")
    size = ["--size", 64] if what == "receptive_field" else []
    outcome = program("visualize", what, "mine.jpg", *size)
    assert outcome.status == 0, outcome.err
    assert outcome.out.splitlines()[-1] == f"mine_{what}.png"
    pixels = np.asarray(Image.open(f"mine_{what}.png").convert("L"), dtype=float)
    assert pixels.std() > 10, "an empty picture"
    again = program("visualize", what, "mine.jpg", *size).refusal()
    assert f"mine_{what}.png exists; choose another --output, or add --overwrite" in again


def test_places_blocks_and_formats(program: Program) -> None:
    arguments = ["--size", 64, "--pixel", 190, 125, "--stage", 4, "--block", 1, "--output", "new/x.svg"]
    assert program("visualize", "sampling", *arguments).status == 0
    assert program("visualize", "sampling", *arguments, "--overwrite").status == 0
    text = Path("new/x.svg").read_text(encoding="utf-8")
    assert text.lstrip().startswith("<?xml")


def test_the_place_decides(program: Program) -> None:
    for name, place in (("a.png", (100, 60)), ("b.png", (300, 200))):
        assert program("visualize", "sampling", "--size", 64, "--pixel", *place, "--output", name).status == 0
    first, second = (np.asarray(Image.open(name)) for name in ("a.png", "b.png"))
    assert (first != second).any()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["sampling", "--pixel", "5", "5"], "the network does not see pixel (5, 5)"),
        (["sampling", "--stage", "5"], "there is no stage 5; this network has 4"),
        (["sampling", "--stage", "3", "--block", "9"], "stage 3 has no block 9; it has 3"),
        (["sampling", "nothing.jpg"], "nothing.jpg"),
        (["sampling", "--output", "x.gif"], "--output must end in one of .png"),
        (["sampling", "--size", "0"], "size must be at least 1 pixel"),
        (["activation", "--classes", "lion"], "unknown class 'lion'"),
        (["receptive_field", "--size", "0"], "--size must be at least 1"),
        (["receptive_field", "--networks", "internimage_t"], "write random:internimage_t, or name its weights"),
        (["receptive_field", "--networks", "random:timm:no_such_net"], "timm can't build no_such_net"),
    ],
)
def test_bad_input_is_one_sentence(program: Program, arguments: list[str], sentence: str) -> None:
    outcome = program("visualize", *arguments)
    # Before it, whose weights they are.
    last = outcome.err.splitlines()[-1]
    assert outcome.status == 2
    assert last.startswith("internimage: ")
    assert sentence in last


def test_a_picture_never_replaces_its_image(program: Program) -> None:
    shutil.copy(sample_photo(), "mine.jpg")
    refusal = program("visualize", "features", "mine.jpg", "--output", "mine.jpg", "--overwrite").refusal()
    assert "mine.jpg is the image itself" in refusal


def test_receptive_fields_of_other_networks(program: Program) -> None:
    """timm's names with options, architectures of ours, and a file of weights with its random twin."""
    model = internimage.create_model("internimage_femto", num_classes=2)
    internimage.save_checkpoint(model, "f.safetensors")
    networks = [
        "f.safetensors",
        "random:f.safetensors",
        "random:internimage_femto",
        "random:timm:resnet10t,act_layer=silu",
    ]
    outcome = program("visualize", "receptive_field", "--size", 64, "--networks", *networks)
    assert outcome.status == 0, outcome.err
    rows = outcome.out.splitlines()[1:-1]
    assert [row.split()[0] for row in rows] == networks
    assert all(0 < int(row.split()[1]) <= int(row.split()[3]) <= 127 for row in rows)


def test_a_file_of_timms_weights_is_read() -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model("resnet10t", num_classes=3).eval()
    save_file(network.state_dict(), "mine.safetensors")
    features, _ = _network("timm:resnet10t=mine.safetensors", 4, torch.device("cpu"))
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(features(image), network.forward_features(image))
    Path("mine.pth").touch()
    for name in ("mine.pth", "nowhere.safetensors"):
        with pytest.raises(ValueError, match=r"must be a \.safetensors file, which runs no code"):
            _network(f"timm:resnet10t={name}", 4, torch.device("cpu"))


def test_reach_prints_a_row_per_block(program: Program) -> None:
    outcome = program("visualize", "reach", "--size", 64)
    assert [row.split()[0] for row in outcome.out.splitlines()[:-1]] == [
        "block",
        "1.1",
        "2.1",
        "3.1",
        "3.2",
        "3.3",
        "4.1",
    ]
    assert Path("cat_reach.png").is_file()
