"""`internimage convert`: every form into every other and back, nothing lost, nothing overwritten."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from internimage import LabelMap, Preprocess, create_model, save_checkpoint
from internimage.model import InternImageConfig, read_checkpoint
from internimage.model.checkpoints.segmenter_files import load_segmenter, save_segmenter
from internimage.model.segmentation import InternImageSegmenter, SegmenterConfig
from internimage.structures import Viewing

Program = Callable[..., Any]
LABELS = LabelMap(("ant", "bee", "Kuh"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A network with random weights, with names and preprocessing."""
    model = create_model("internimage_femto", num_classes=3)
    with torch.no_grad():
        for tensor in (*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())):
            tensor.copy_(torch.randn_like(tensor).abs())
    return save_checkpoint(model, tmp_path / "source.safetensors", labels=LABELS, preprocess=Preprocess(96))


def same_weights(one: Path, other: Path) -> bool:
    mine, theirs = read_checkpoint(one).state, read_checkpoint(other).state
    return set(mine) == set(theirs) and all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_ours_to_ours_keeps_names_and_preprocessing(program: Program, source: Path) -> None:
    outcome = program("convert", source, "copies/copy.safetensors")
    assert (outcome.status, outcome.err) == (0, "")
    assert f"{source} (ours): " in outcome.out
    assert outcome.out.endswith("written: copies/copy.safetensors\n")
    card = read_checkpoint("copies/copy.safetensors").card
    assert card is not None
    assert (card.labels, card.preprocess) == (LABELS, Preprocess(96))
    assert same_weights(source, Path("copies/copy.safetensors"))
    assert Path("copies/copy.json").is_file()


def test_to_the_official_form_and_back(program: Program, source: Path) -> None:
    assert program("convert", source, "theirs.pth", "--format", "official").status == 0
    state = torch.load("theirs.pth", weights_only=True)["model"]
    assert "levels.0.blocks.0.dcn.dw_conv.0.weight" in state
    assert "patch_embed.conv1.weight" in state
    assert torch.equal(state["head.weight"], read_checkpoint(source).state["head.fc.weight"])
    outcome = program("convert", "theirs.pth", "back.safetensors")
    assert (outcome.status, "theirs.pth (official): " in outcome.out) == (0, True)
    assert same_weights(source, Path("back.safetensors"))


def test_to_hugging_faces_form_and_back(program: Program, source: Path) -> None:
    assert program("convert", source, "hub", "--format", "huggingface").status == 0
    assert {path.name for path in Path("hub").iterdir()} == {"model.safetensors", "config.json"}
    config = json.loads(Path("hub/config.json").read_text(encoding="utf-8"))
    card = read_checkpoint(source).card
    assert card is not None
    assert (config["model_type"], config["num_classes"]) == ("internimage", 3)
    assert (config["channels"], config["depths"]) == (card.config.channels, list(card.config.depths))
    assert config["id2label"] == {"0": "ant", "1": "bee", "2": "Kuh"}
    assert all(key.startswith("model.") for key in load_file("hub/model.safetensors"))
    outcome = program("convert", "hub", "back.safetensors")
    assert (outcome.status, "(huggingface): " in outcome.out) == (0, True)
    assert same_weights(source, Path("back.safetensors"))
    back = read_checkpoint("back.safetensors").card
    assert back is not None
    assert back.labels == LABELS


def test_half_the_size_and_the_same_weights(program: Program, source: Path) -> None:
    assert program("convert", source, "half.safetensors", "--half").status == 0
    assert Path("half.safetensors").stat().st_size < 0.53 * source.stat().st_size
    halves, wholes = load_file("half.safetensors"), load_file(source)
    for name, whole in wholes.items():
        half = halves[name]
        assert half.dtype == (torch.float16 if whole.is_floating_point() else whole.dtype), name
        torch.testing.assert_close(half.to(whole.dtype), whole, rtol=1e-3, atol=1e-6)
    model = create_model("internimage_femto", pretrained="half.safetensors")
    assert {each.dtype for each in model.parameters()} == {torch.float32}
    assert read_checkpoint("half.safetensors").card == read_checkpoint(source).card


def test_weights_beyond_half_precision_are_refused(program: Program) -> None:
    model = create_model("internimage_femto", num_classes=3)
    with torch.no_grad():
        model.get_parameter("head.fc.bias")[1] = 7e4
    save_checkpoint(model, "large.safetensors")
    assert (
        "head.fc.bias has values beyond float16's"
        in program("convert", "large.safetensors", "o.safetensors", "--half").refusal()
    )
    assert not Path("o.safetensors").exists()


def test_names_can_be_given(program: Program, source: Path) -> None:
    program("convert", source, "theirs.pth", "--format", "official")
    Path("names.txt").write_text("eins\n\n zwei \ndrei\n", encoding="utf-8")
    assert program("convert", "theirs.pth", "named.safetensors", "--labels", "names.txt").status == 0
    card = read_checkpoint("named.safetensors").card
    assert card is not None
    assert card.labels == LabelMap(("eins", "zwei", "drei"))


@pytest.mark.parametrize("form", ["ours", "official", "huggingface"])
def test_nothing_is_overwritten_by_accident(program: Program, source: Path, form: str) -> None:
    output = {"ours": "x.safetensors", "official": "x.pth", "huggingface": "x"}[form]
    arguments = ("convert", source, output, "--format", form)
    assert program(*arguments).status == 0
    before = {path: path.read_bytes() for path in Path().rglob("x*") if path.is_file()}
    assert f"{output} exists; choose another name" in program(*arguments).refusal()
    assert {path: path.read_bytes() for path in Path().rglob("x*") if path.is_file()} == before
    assert program(*arguments, "--overwrite").status == 0


def test_the_average_or_the_weights(program: Program) -> None:
    model = create_model("internimage_femto", num_classes=3)
    from internimage.model.checkpoints.convert import to_official

    weights = to_official(model.state_dict())
    average = {key: tensor + 1 if tensor.is_floating_point() else tensor for key, tensor in weights.items()}
    torch.save({"model": weights, "model_ema": average}, "both.pth")
    for choice, expected in (("false", weights), ("true", average)):
        output = f"{choice}.pth"
        assert program("convert", "both.pth", output, "--format", "official", "--ema", choice).status == 0
        assert torch.equal(torch.load(output, weights_only=True)["model"]["head.bias"], expected["head.bias"])


def test_imagenet_22k_becomes_1k(program: Program) -> None:
    from internimage.model.checkpoints.loading import in22k_rows

    large = create_model("internimage_femto", num_classes=21841)
    save_checkpoint(large, "large.safetensors")
    assert program("convert", "large.safetensors", "small.safetensors", "--in1k_head").status == 0
    weight = read_checkpoint("small.safetensors").state["head.fc.weight"]
    assert torch.equal(weight, large.state_dict()["head.fc.weight"][in22k_rows()])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.pth", "x.safetensors"], "no weights at nowhere.pth"),
        (["SOURCE", "x.pth"], "weights are saved as .safetensors, got x.pth"),
        (["SOURCE", "x.bin", "--format", "official"], "official files end in .pth, got x.bin"),
        (["SOURCE", "x.safetensors", "--in1k_head"], "--in1k_head needs ImageNet-22k's 21841 classes"),
        (["SOURCE", "x.safetensors", "--labels", "two.txt"], "two.txt has 2 names for a model of 3 classes"),
        (["SOURCE", "x", "--format", "huggingface", "--labels", "two.txt"], "two.txt has 2 names"),
        (["SOURCE", "x.safetensors", "--labels", "missing.txt"], "--labels missing.txt can't be read as text"),
        (["SOURCE", "x.safetensors", "--ema", "true"], "has no moving average"),
        (["SOURCE", "two.txt/x.safetensors"], "two.txt: File exists"),
        (["grey.safetensors", "x.pth", "--format", "official"], "always has in_chans 3"),
        (["backbone.safetensors", "x.safetensors"], "has no classification head"),
        (["two.txt", "x.safetensors"], "two.txt is"),
    ],
)
def test_what_is_wrong_is_one_sentence(program: Program, source: Path, arguments: list[str], message: str) -> None:
    Path("two.txt").write_text("a\nb\n", encoding="utf-8")
    save_checkpoint(create_model("internimage_femto", in_chans=1, num_classes=2), "grey.safetensors")
    save_checkpoint(create_model("internimage_femto", features_only=True), "backbone.safetensors")
    given = [str(source) if argument == "SOURCE" else argument for argument in arguments]
    assert message in program("convert", *given).refusal()
    assert not list(Path().glob("x*"))


def test_a_networks_own_settings_travel(program: Program) -> None:
    """Files of ours may hold what official ones can't: other stems and channels."""
    model = create_model("internimage_femto", num_classes=2, in_chans=1, stem_strides=(1, 1))
    save_checkpoint(model, "grey.safetensors")
    assert program("convert", "grey.safetensors", "copy.safetensors").status == 0
    card = read_checkpoint("copy.safetensors").card
    assert card is not None
    assert card.config == model.config


def test_a_segmenter_to_mmsegmentations_form_and_back(program: Program) -> None:
    config = SegmenterConfig(InternImageConfig.from_variant("femto", num_classes=0), 3, "segformer", 16)
    viewing, palette = Viewing((64, 128), 32, (64, 64), (32, 32)), ((0, 0, 0), (9, 9, 9), (255, 0, 0))
    network = InternImageSegmenter(config)
    save_segmenter(network, "ours.safetensors", labels=LABELS, palette=palette, viewing=viewing)
    outcome = program("convert", "ours.safetensors", "theirs.pth", "--format", "official")
    assert (outcome.status, outcome.out) == (
        0,
        "ours.safetensors (ours): a segmenter of 3 classes\nwritten: theirs.pth\n",
    )
    theirs = torch.load("theirs.pth", weights_only=True)
    assert "decode_head.conv_seg.weight" in theirs["state_dict"]
    assert theirs["meta"]["CLASSES"] == LABELS.names
    assert "theirs.pth exists" in program("convert", "ours.safetensors", "theirs.pth", "--format", "official").refusal()
    assert program("convert", "theirs.pth", "back.safetensors").status == 0
    back = load_segmenter("back.safetensors")
    assert (back.model.config, back.labels, back.palette, back.viewing) == (config, LABELS, palette, viewing)
    assert all(torch.equal(each, back.model.state_dict()[key]) for key, each in network.state_dict().items())
    Path("names.txt").write_text("a\nb\nc\n", encoding="utf-8")
    assert program("convert", "theirs.pth", "named.safetensors", "--labels", "names.txt").status == 0
    assert load_segmenter("named.safetensors").labels == LabelMap(("a", "b", "c"))
    for arguments, message in (
        (["x.safetensors", "--in1k_head"], "--in1k_head is for classifiers, and theirs.pth is a segmenter"),
        (["x", "--format", "huggingface"], "a segmenter has no Hugging Face form"),
        (["x.bin", "--format", "official"], "official files end in .pth, got x.bin"),
    ):
        assert message in program("convert", "theirs.pth", *arguments).refusal()
