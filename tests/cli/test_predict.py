"""`internimage predict`: right answers in order, bad files reported at the end, nothing overwritten."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from internimage import Classifier
from internimage.cli.predict.names import remove_earlier
from internimage.data import export_samples

Program = Callable[..., Any]
Smoke = tuple[Path, Any]
pytestmark = pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
FILES = {"predictions.json", "predictions.csv", "predictions.png"}


def predict(program: Program, smoke: Smoke, *arguments: object) -> Any:
    return program("predict", *arguments, "--weights", smoke[0], "--device", "cpu")


def rows(folder: str = "out") -> list[dict[str, str]]:
    with (Path(folder) / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_answers_are_the_classifiers_in_order(program: Program, smoke: Smoke) -> None:
    paths = export_samples(Path("some pictures"), "test", 7)
    given = [paths[4], "some pictures/Trouser", paths[0]]
    outcome = predict(program, smoke, *given, "--output", "out", "--top", 2, "--batch_size", 2)
    assert (outcome.status, outcome.err) == (0, "")
    expected = [paths[4], *sorted(Path("some pictures/Trouser").iterdir()), paths[0]]
    assert [row["image"] for row in rows()] == [str(path) for path in expected]
    answers = Classifier(smoke[0], device="cpu")(expected)
    assert [row["label"] for row in rows()] == [answer.label for answer in answers]
    described = json.loads(Path("out/predictions.json").read_text(encoding="utf-8"))
    for entry, answer, path in zip(described, answers, expected, strict=True):
        assert entry["image"] == str(path)
        assert [item["label"] for item in entry["top"]] == [name for name, _ in answer.top(2)]
        assert [item["score"] for item in entry["top"]] == pytest.approx([s for _, s in answer.top(2)], abs=2e-6)
    assert outcome.out.splitlines()[-1] == f"{len(expected)} of {len(expected)} images: out"
    assert {path.name for path in Path("out").iterdir()} == FILES
    with Image.open("out/predictions.png") as sheet:
        assert min(sheet.size) > 300


def test_bad_files_are_reported_at_the_end_and_the_rest_is_done(program: Program, smoke: Smoke) -> None:
    good = export_samples(Path("mixed"), "test", 3)
    whole = good[0].read_bytes()
    bad = {"cut.png": whole[: len(whole) // 2], "empty.jpg": b"", "text.png": b"hello", "folder.gif": None}
    for name, content in bad.items():
        path = Path("mixed") / name
        path.mkdir() if content is None else path.write_bytes(content)
    outcome = predict(program, smoke, "mixed", "--output", "out")
    assert outcome.status == 1
    assert outcome.out.splitlines()[-1] == "3 of 6 images: out"
    lines = outcome.err.splitlines()
    assert len(lines) == 3
    for line, name in zip(lines, ("cut.png", "empty.jpg", "text.png"), strict=True):
        assert line.startswith("internimage: "), line
        assert f"mixed/{name}" in line
    assert sorted(row["image"] for row in rows()) == sorted(map(str, good))


def test_only_bad_files(program: Program, smoke: Smoke) -> None:
    Path("empty.png").touch()
    outcome = predict(program, smoke, "empty.png", "--output", "out")
    assert outcome.status == 1
    assert "0 of 1 images" in outcome.out
    assert not list(Path("out").iterdir())


def test_any_picture_a_user_has(program: Program, smoke: Smoke) -> None:
    values = np.arange(90 * 70 * 3, dtype=np.uint8).reshape(90, 70, 3)
    Image.fromarray(values).save("rgb.webp")
    Image.fromarray(values).convert("CMYK").save("cmyk.jpg")
    Image.fromarray(values).convert("P").save("palette.gif")
    Image.fromarray(values[..., 0].astype(np.uint16) * 257).save("deep.png")
    Image.fromarray(values).convert("RGBA").save("alpha.tiff")
    Image.fromarray(values).save("no_suffix", format="PNG")
    outcome = predict(program, smoke, *sorted(Path().iterdir()), "--output", "out")
    assert (outcome.status, outcome.err) == (0, "")
    assert len(rows()) == 6


def test_names_that_are_no_text(program: Program, smoke: Smoke) -> None:
    """A file from another system's encoding: it is predicted, and JSON gives back its very name."""
    (picture,) = export_samples(Path("samples"), "test", 1)
    name = os.fsdecode(b"caf\xe9 \xf0\x9f\x98\x80.png")
    picture.rename(name)
    outcome = predict(program, smoke, name, "Grüße/日本.png", "--output", "none")
    assert "日本" in outcome.refusal()
    outcome = predict(program, smoke, name, "--output", "out")
    assert outcome.status == 0, outcome
    assert json.loads(Path("out/predictions.json").read_text(encoding="utf-8"))[0]["image"] == name


def test_predictions_are_never_overwritten_by_accident(program: Program, smoke: Smoke) -> None:
    (picture,) = export_samples(Path("samples"), "test", 1)
    assert predict(program, smoke, picture, "--output", "out").status == 0
    Path("out/mine.txt").write_text("mine", encoding="utf-8")
    Path("out/predictions.png").unlink()
    before = Path("out/predictions.json").read_bytes()
    message = predict(program, smoke, picture, "--output", "out").refusal()
    assert "out holds predictions.json, predictions.csv already; choose another --output or pass --overwrite" in message
    assert Path("out/predictions.json").read_bytes() == before
    assert predict(program, smoke, picture, "--output", "out", "--overwrite").status == 0
    assert {path.name for path in Path("out").iterdir()} == FILES | {"mine.txt"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.png", "--output", "out"], "nowhere.png does not exist; check the path"),
        (["empty", "--output", "out"], "empty holds no images; known suffixes are"),
        (["p.png", "--output", "p.png"], "--output p.png is a file; give a folder"),
        (["p.png", "--output", "p.png/below"], "p.png/below: Not a directory"),
        (["p.png", "--output", "/dev/null/x"], "/dev/null/x: Not a directory"),
        (["p.png", "--output", "out", "--top", "0"], "--top must be 1 or more, got 0"),
        (["p.png", "--output", "out", "--batch_size", "0"], "--batch_size must be 1 or more, got 0"),
        (["p.png", "--output", "out", "--device", "abacus"], "device 'abacus' is not available here"),
    ],
)
def test_what_is_wrong_is_one_sentence(program: Program, smoke: Smoke, arguments: list[str], message: str) -> None:
    Path("empty").mkdir()
    Image.new("L", (9, 9)).save("p.png")
    outcome = program("predict", *arguments[:1], "--weights", smoke[0], *arguments[1:])
    assert message in outcome.refusal()


def test_weights_that_are_none(program: Program, smoke: Smoke) -> None:
    Image.new("L", (9, 9)).save("p.png")
    Path("code.pth").write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR.")
    for weights, message in (
        ("nowhere.pth", "no weights at nowhere.pth"),
        ("code.pth", "code.pth is refused: loading it would run os.system"),
        ("p.png", "p.png is"),
        (Path(), "has no model.safetensors"),
    ):
        assert message in program("predict", "p.png", "--weights", weights, "--output", "out").refusal()
    assert not Path("hacked").exists()


def test_a_classifier_wrote_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "predictions.json").write_text('[{"image": "a/x.png", "top": []}]', encoding="utf-8")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/x.jpg").touch()
    remove_earlier(tmp_path, [])
    assert (tmp_path / "pictures/x.jpg").is_file()


def test_what_names_no_images_is_not_ours_to_remove(tmp_path: Path) -> None:
    for text in ("", "[", "{}", "[]", "[1]", '[{"picture": "a"}]'):
        (tmp_path / "predictions.json").write_text(text, encoding="utf-8")
        (tmp_path / "classes.txt").write_text("sky", encoding="utf-8")
        remove_earlier(tmp_path, [])
        assert {path.name for path in tmp_path.iterdir()} == {"predictions.json", "classes.txt"}
