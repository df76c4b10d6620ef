"""Files of segmenters: ours and a training's; and what is no segmenter's file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from internimage import InternImageConfig, LabelMap, create_model, save_checkpoint
from internimage.model import read_checkpoint
from internimage.model.checkpoints.detector_files import holds_detector
from internimage.model.checkpoints.files import CARD_KEY, Card
from internimage.model.checkpoints.segmenter_files import (
    build_segmenter,
    holds_segmenter,
    load_segmenter,
    official_contents,
    palette_of,
    save_segmenter,
    segmenter_card,
    viewing_of,
)
from internimage.model.segmentation import InternImageSegmenter, SegmenterConfig
from internimage.structures import Viewing
from internimage.tasks.checkpoints import export_weights

LABELS, PALETTE = LabelMap(("sky", "road", "tree")), ((0, 0, 255), (90, 90, 90), (0, 128, 0))
VIEWING = Viewing((96, 160), 8, (64, 96), (32, 48), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
FEMTO = InternImageConfig.from_variant("femto", num_classes=0)
CONFIGURED = SegmenterConfig(FEMTO, 3, "segformer", 16, dropout=0.2)
ALL = {
    "upernet": SegmenterConfig(
        FEMTO, 3, "upernet", 16, pool_scales=(1, 2), auxiliary=True, auxiliary_channels=8, auxiliary_weight=0.3
    ),
    "segformer": CONFIGURED,
    "mask2former": SegmenterConfig(
        FEMTO,
        3,
        "mask2former",
        channels=32,
        queries=7,
        encoder_layers=1,
        decoder_layers=2,
        heads=4,
        encoder_feedforward=24,
        decoder_feedforward=40,
        points=99,
    ),
}


@pytest.fixture(scope="module")
def segmenter() -> InternImageSegmenter:
    torch.manual_seed(0)
    return InternImageSegmenter(CONFIGURED)


@pytest.fixture(scope="module")
def file(segmenter: InternImageSegmenter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "roads.safetensors"
    return save_segmenter(segmenter, path, labels=LABELS, palette=PALETTE, viewing=VIEWING)


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)


class TestOurs:
    @pytest.mark.parametrize("head", ALL)
    def test_all_comes_back_also_by_way_of_mmsegmentation(self, head: str, tmp_path: Path) -> None:
        """Also what is no parameter: the statistics of batch normalisation."""
        network = InternImageSegmenter(ALL[head])
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.fill_(3.0)
        torch.save(official_contents(network, LABELS, PALETTE, VIEWING), tmp_path / "theirs.pth")
        theirs = load_segmenter(tmp_path / "theirs.pth")
        ours = save_segmenter(
            theirs.model, tmp_path / "x.safetensors", labels=theirs.labels, palette=theirs.palette, viewing=VIEWING
        )
        for loaded in (theirs, load_segmenter(ours)):
            assert same(loaded.model.state_dict(), network.state_dict())
            assert loaded.model.config == network.config
            assert (loaded.labels, loaded.palette, loaded.viewing) == (LABELS, PALETTE, VIEWING)
            assert not any(module.training for module in loaded.model.modules())

    def test_without_names_and_colours(self, segmenter: InternImageSegmenter, tmp_path: Path) -> None:
        loaded = load_segmenter(save_segmenter(segmenter, tmp_path / "x.safetensors"))
        assert (loaded.labels, loaded.palette, loaded.viewing) == (None, None, Viewing())
        for viewing in (Viewing(None), Viewing((64, 96)), Viewing((64, 64), 4)):
            torch.save(official_contents(segmenter, viewing=viewing), tmp_path / "x.pth")
            loaded = load_segmenter(tmp_path / "x.pth")
            assert (loaded.labels, loaded.palette, loaded.viewing) == (None, None, viewing)

    def test_the_description_lies_beside_it(self, file: Path) -> None:
        values = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        assert (values["task"], values["labels"]) == ("segmentation", ["sky", "road", "tree"])
        assert values["settings"]["palette"] == [[0, 0, 255], [90, 90, 90], [0, 128, 0]]
        assert values["settings"]["viewing"]["window"] == [64, 96]
        assert (values["settings"]["head"], values["settings"]["channels"]) == ("segformer", 16)
        with safe_open(file, "pt") as weights:
            assert json.loads(weights.metadata()[CARD_KEY]) == values

    def test_a_card_is_the_same_after_it_was_written(self) -> None:
        card = segmenter_card(ALL["upernet"], LABELS, PALETTE, VIEWING)
        again = Card.from_dict(json.loads(json.dumps(card.to_dict())))
        assert again == card
        assert (palette_of(again), viewing_of(again), build_segmenter(again).config) == (
            PALETTE,
            VIEWING,
            ALL["upernet"],
        )

    def test_the_file_alone_is_enough(self, file: Path, tmp_path: Path) -> None:
        alone = tmp_path / "renamed.safetensors"
        alone.write_bytes(file.read_bytes())
        assert (load_segmenter(alone).labels, load_segmenter(str(tmp_path)).viewing) == (LABELS, VIEWING)

    @pytest.mark.parametrize("name", ["x.safetensors", "x.json"])
    def test_nothing_is_overwritten_unasked(self, segmenter: InternImageSegmenter, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_text("mine")
        with pytest.raises(FileExistsError, match=rf"{name} exists; choose another name or pass overwrite=True"):
            save_segmenter(segmenter, tmp_path / "x.safetensors")
        assert [each.name for each in tmp_path.iterdir()] == [name]
        assert load_segmenter(save_segmenter(segmenter, tmp_path / "x.safetensors", overwrite=True)).labels is None

    @pytest.mark.parametrize(
        ("said", "message"),
        [
            ({"labels": LabelMap(("sky",))}, "1 class names for a segmenter of 3 classes"),
            ({"palette": PALETTE[:2]}, "2 colours for a segmenter of 3 classes"),
            ({"palette": (*PALETTE[:2], (0, 0, 256))}, r"from 0 to 255, got \(0, 0, 256\)"),
            ({"palette": (*PALETTE[:2], "red")}, "a colour must be red, green and blue from 0 to 255, got 'red'"),
        ],
    )
    def test_what_makes_no_file(
        self, segmenter: InternImageSegmenter, tmp_path: Path, said: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            save_segmenter(segmenter, tmp_path / "x.safetensors", **said)
        with pytest.raises(ValueError, match=r"saved as \.safetensors, got .*x\.pth"):
            save_segmenter(segmenter, tmp_path / "x.pth")
        assert not list(tmp_path.iterdir())


@pytest.fixture
def checkpoint(segmenter: InternImageSegmenter, tmp_path: Path) -> Path:
    """As a training with a moving average writes it, with a weight of the training's own."""
    average = {f"network.{key}": tensor for key, tensor in segmenter.state_dict().items()}
    contents = {
        "state_dict": average | {"loss.weight": torch.ones(3)},
        "current_model_state": {key: tensor + 1 for key, tensor in average.items()},
        CARD_KEY: segmenter_card(CONFIGURED, LABELS, PALETTE, VIEWING).to_dict(),
    }
    torch.save(contents, tmp_path / "best.ckpt")
    return tmp_path / "best.ckpt"


def test_a_training_checkpoint(segmenter: InternImageSegmenter, checkpoint: Path, tmp_path: Path) -> None:
    exported = export_weights(checkpoint, tmp_path / "model.safetensors")
    for source, ema in ((checkpoint, None), (checkpoint, True), (exported, None)):
        loaded = load_segmenter(source, ema=ema)
        assert same(loaded.model.state_dict(), segmenter.state_dict())
        assert (loaded.labels, loaded.palette, loaded.viewing) == (LABELS, PALETTE, VIEWING)
    raw = load_segmenter(checkpoint, ema=False).model.state_dict()
    assert all(torch.equal(raw[key], tensor + 1) for key, tensor in segmenter.state_dict().items())
    found = read_checkpoint(checkpoint, ema=False)
    assert same(load_segmenter(found).model.state_dict(), raw)
    with pytest.raises(ValueError, match="ema is chosen when the file is read"):
        load_segmenter(found, ema=True)


class TestRefused:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda state: state.pop("decode_head.classifier.bias"), r"it lacks decode_head\.classifier\.bias$"),
            (lambda state: state.update(extra=torch.ones(2)), r"it also has extra$"),
            (
                lambda state: state.update({"decode_head.classifier.bias": torch.ones(7)}),
                r"another shape decode_head\.",
            ),
            (lambda state: [state.pop(k) for k in list(state) if ".convs." in k], r"it lacks .* and \d\d more$"),
        ],
    )
    def test_tensors_are_named(self, file: Path, tmp_path: Path, change: Callable[..., Any], message: str) -> None:
        state, path = load_file(file), tmp_path / "x.safetensors"
        change(state)
        with safe_open(file, "pt") as weights:
            save_file(state, path, metadata=weights.metadata())
        with pytest.raises(ValueError, match=rf"x\.safetensors does not fit the segmenter it describes: .*{message}"):
            load_segmenter(path)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"head": "fcn"}, r"x\.safetensors: head must be one of upernet, segformer, mask2former"),
            ({"newer": 2}, r"x\.safetensors: a segmenter's description .* read: .*newer"),
            ({"viewing": {"newer": 2}}, r"x\.safetensors: unknown settings of a segmenter's input \['newer'\]"),
            ({"palette": [[0, 0, 0]]}, r"x\.safetensors colours 1 classes, but its network has 3 of them"),
            ({"palette": [7, 7, 7]}, r"x\.safetensors: a colour must be red, green and blue"),
        ],
    )
    def test_a_description_that_lies(self, file: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
        card = segmenter_card(CONFIGURED, LABELS, PALETTE, VIEWING)
        values = json.dumps(replace(card, settings={**card.settings, **changes}).to_dict())
        save_file(load_file(file), tmp_path / "x.safetensors", metadata={CARD_KEY: values})
        with pytest.raises(ValueError, match=message):
            load_segmenter(tmp_path / "x.safetensors")

    def test_names_of_other_classes(self, file: Path, tmp_path: Path) -> None:
        card = replace(segmenter_card(CONFIGURED, None, None, None), labels=LabelMap(("sky",)))
        save_file(load_file(file), tmp_path / "x.safetensors", metadata={CARD_KEY: json.dumps(card.to_dict())})
        with pytest.raises(ValueError, match=r"x\.safetensors names 1 classes, but its network has 3 of them"):
            load_segmenter(tmp_path / "x.safetensors")

    def test_weights_without_a_description(self, segmenter: InternImageSegmenter, tmp_path: Path) -> None:
        torch.save(segmenter.state_dict(), tmp_path / "x.pth")
        with pytest.raises(ValueError, match=r"x\.pth holds a segmenter's weights without their description"):
            load_segmenter(tmp_path / "x.pth")

    def test_a_classifier(self, tmp_path: Path) -> None:
        model = create_model("internimage_femto", num_classes=3)
        ours = save_checkpoint(model, tmp_path / "ours.safetensors", labels=LABELS)
        with pytest.raises(ValueError, match=r"ours\.safetensors holds a network for classification, not a segmenter"):
            load_segmenter(ours)
        torch.save({"state_dict": model.state_dict()}, tmp_path / "theirs.pth")
        with pytest.raises(ValueError, match=r"theirs\.pth: these weights hold no segmentation head"):
            load_segmenter(tmp_path / "theirs.pth")
        assert not holds_segmenter(read_checkpoint(ours))

    def test_a_segmenter_is_no_detector(self, file: Path, checkpoint: Path) -> None:
        for path in (file, checkpoint):
            found = read_checkpoint(path)
            assert (holds_segmenter(found), holds_detector(found)) == (True, False)
