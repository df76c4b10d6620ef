"""``internimage visualize robustness``: on real pictures, beside a network of timm's and another of ours."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

import internimage
from internimage.data import SAMPLE_LABELS, SAMPLE_PREPROCESS
from internimage.model.weights import DEFAULT_WEIGHTS
from internimage.structures import Robustness
from internimage.visualization.robustness import robustness_figure

Program = Callable[..., Any]
OPTIONS = '{"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8], "in_chans": 1}'


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Untrained ones: of ours, and of timm's."""
    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    ours = internimage.create_model("internimage_femto", num_classes=10, in_chans=1, stem_strides=(1, 2))
    ours_file = folder / "ours.safetensors"
    internimage.save_checkpoint(ours, ours_file, labels=SAMPLE_LABELS, preprocess=replace(SAMPLE_PREPROCESS, size=32))
    peer = timm.create_model("convnext_atto", num_classes=10, **json.loads(OPTIONS))
    save_file(peer.state_dict(), folder / "peer.safetensors")
    return ours_file, folder / "peer.safetensors"


def test_a_table_a_plot_and_the_numbers(program: Program, clothes: Path, networks: tuple[Path, Path]) -> None:
    ours, peer = networks
    command = ["visualize", "robustness", clothes / "val", "--weights", ours, "--peer", "timm:convnext_atto", ours]
    command += ["--peer_weights", peer, "--peer_options", OPTIONS, "--images", 10, "--changes", "rotation", "jpeg"]
    outcome = program(*command, "--output", "out")
    # The third network is the first again, and has one name with it.
    assert outcome.status == 0, outcome
    assert outcome.out.splitlines()[-4:] == [f"out/robustness.{suffix}" for suffix in ("md", "csv", "json", "png")]
    results = json.loads(Path("out/robustness.json").read_text(encoding="utf-8"))
    assert [each["name"] for each in results] == [str(ours), "timm:convnext_atto"]
    assert all(each["num_images"] == 10 and list(each["accuracy"]) == ["rotation", "jpeg"] for each in results)
    with Path("out/robustness.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * (1 + 2 * 5)
    assert float(rows[1]["accuracy"]) == results[0]["accuracy"]["rotation"][0]
    page = Path("out/robustness.md").read_text(encoding="utf-8")
    assert re.search(rf"\| none \| {100 * results[0]['clean']:.1f}% \| 100.0% \|", page)
    with Image.open("out/robustness.png") as plot:
        assert min(plot.size) > 300
    assert "out holds robustness.md, robustness.csv" in program(*command, "--output", "out").refusal()
    assert program(*command, "--output", "out", "--overwrite").status == 0
    assert json.loads(Path("out/robustness.json").read_text(encoding="utf-8")) == results


def test_the_shipped_weights_know_their_classes(program: Program, tmp_path: Path) -> None:
    """Two pictures of each, one of a photograph of a cat."""
    from internimage.data import sample_photo

    names = internimage.Classifier(device="cpu").labels
    with Image.open(sample_photo()) as photo:
        for number, name in enumerate(names):
            (tmp_path / "set" / name).mkdir(parents=True)
            picture = photo.resize((48, 32)) if name == "cat" else Image.new("RGB", (48, 32), (number, 90, 9))
            picture.save(tmp_path / "set" / name / "a.png")
    assert program("visualize", "robustness", "set", "--output", "out", "--changes", "brightness").status == 0
    (found,) = json.loads(Path("out/robustness.json").read_text(encoding="utf-8"))
    assert found["clean"] >= 0.1
    assert found["num_images"] == 10


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--changes", "fog"], "unknown changes fog; there are translation, rotation"),
        (["--images", 0], "--images must be at least 1, got 0"),
        (["--peer", DEFAULT_WEIGHTS], "differ in their channels: one of them sees grey"),
        (["--peer", "timm:no_such"], "timm can't build no_such"),
        (["--peer_weights", "a.safetensors"], "are those of one timm network; name it: --peer timm:NAME"),
        (["--peer", "timm:convnext_atto", "--peer_options", "{}  "], "--peer_options goes with --peer_weights"),
        (["--peer", "timm:convnext_atto", "--peer_weights", "a.pth"], "must be a .safetensors file"),
        (["--peer", "timm:convnext_atto", "--peer_weights", "a.safetensors", "--peer_options", "{"], "is no JSON"),
        (
            ["--peer", "timm:convnext_atto", "--peer_weights", "a.safetensors"],
            "No such file or directory: a.safetensors",
        ),
    ],
)
def test_what_makes_no_sense_is_one_sentence(
    program: Program, clothes: Path, networks: tuple[Path, Path], options: list[Any], what: str
) -> None:
    outcome = program("visualize", "robustness", clothes / "val", "--weights", networks[0], "--output", "out", *options)
    assert what in outcome.refusal()
    assert not Path("out/robustness.md").exists()


def test_shards_are_the_pictures_that_they_hold(program: Program, clothes: Path, networks: tuple[Path, Path]) -> None:
    assert program("data", "pack", clothes, "packed").status == 0
    command = ["--weights", networks[0], "--changes", "contrast"]
    for folder, output in ((clothes, "a"), ("packed", "b")):
        outcome = program("visualize", "robustness", folder, *command, "--output", output)
        assert outcome.status == 0, outcome
        assert "has no test images: the validation images stand in for them" in outcome.err
    assert Path("a/robustness.json").read_bytes() == Path("b/robustness.json").read_bytes()


def test_a_peer_may_need_larger_pictures(program: Program, clothes: Path, networks: tuple[Path, Path]) -> None:
    small = Path("small.safetensors")
    ours = internimage.create_model("internimage_femto", num_classes=10, in_chans=1, stem_strides=(1, 1))
    internimage.save_checkpoint(ours, small, labels=SAMPLE_LABELS, preprocess=SAMPLE_PREPROCESS)
    peer = ["--peer", "timm:convnext_atto", "--peer_weights", networks[1], "--peer_options", OPTIONS]
    outcome = program("visualize", "robustness", clothes / "val", "--weights", small, *peer)
    assert "timm:convnext_atto can't take pictures of 28 x 28 pixels (Calculated padded" in outcome.refusal()


def test_the_figure_refuses_what_it_cannot_compare() -> None:
    one = Robustness("a", 1, 1.0, {"blur": (0.5,)}, {"blur": (0.5,)})
    other = Robustness("b", 1, 1.0, {"noise": (0.5,)}, {"noise": (0.5,)})
    assert len(robustness_figure([one]).axes) == 1
    with pytest.raises(ValueError, match="b was shown other changes than a"):
        robustness_figure([one, other])
    with pytest.raises(ValueError, match="1 to 5 networks, got 0"):
        robustness_figure([])
