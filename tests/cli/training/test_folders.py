"""`internimage data`, and what training says of folders and images that are wrong: one sentence, nothing lost."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from internimage.data import export_samples

Program = Callable[..., Any]
pytestmark = pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
# The smoke recipe on a folder of files.
FIT = ("fit", "--config", "smoke/classification", "--run", "run")
SIZE = ("--data.init_args.preprocess", "{size: 28, mean: [0.286], std: [0.354]}")


@pytest.fixture
def folder(clothes: Path, tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    return Path(shutil.copytree(clothes, tmp_path / "pictures of clothes"))


def test_samples_are_written_and_found_right(program: Program) -> None:
    outcome = program("data", "samples", "shop", "--train", 30, "--val", 20)
    assert (outcome.status, outcome.out) == (0, "30 + 20 images in shop/train and shop/val\n")
    assert len(list(Path("shop/train").rglob("*.png"))) == 30
    assert len(list(Path("shop/val").rglob("*.png"))) == 20
    outcome = program("data", "check", "shop")
    assert (outcome.status, outcome.err) == (0, "")
    assert re.search(r"train +30 images, 10 classes, 3 to 3 images a class", outcome.out)
    assert re.search(r"val +20 images, 10 classes, 2 to 2 images a class", outcome.out)
    assert outcome.out.endswith("every image can be read\n")
    assert "is not empty" in program("data", "samples", "shop").refusal()
    assert "count must be between 1 and 5000" in program("data", "samples", "new", "--train", 5001).refusal()


def test_check_names_every_bad_image(program: Program, folder: Path) -> None:
    test = Path(shutil.copytree(folder / "val", folder / "test"))
    bad = [folder / "train/Bag/zero.png", folder / "val/Coat/text.jpg", test / "Dress/cut.png"]
    for path, content in zip(bad, (b"", b"hello", b"\x89PNG\r\n\x1a\n1234"), strict=True):
        path.write_bytes(content)
    outcome = program("data", "check", folder)
    assert outcome.status == 1
    assert "3 images can't be read: mend or remove them" in outcome.out
    assert re.search(r"test +21 images", outcome.out), "the test images are looked at as well"
    for path, line in zip(bad, outcome.err.splitlines(), strict=True):
        assert line.startswith(f"internimage: cannot read {path}") or str(path) in line


def test_check_of_class_folders_says_how_they_are_split(program: Program, clothes: Path) -> None:
    outcome = program("data", "check", clothes / "train")
    assert outcome.status == 0
    found = re.findall(r"(\d+) images, 10 classes", outcome.out)
    assert len(found) == 2
    assert sum(map(int, found)) == 40


def spoil(folder: Path, what: str) -> Path:
    if what == "missing":
        return folder / "nowhere"
    if what == "a file":
        return next(folder.rglob("*.png"))
    if what == "no images":
        for path in folder.rglob("*.png"):
            path.unlink()
    elif what == "an empty class":
        for path in (folder / "train/Bag").iterdir():
            path.unlink()
    elif what == "one class":
        return next((folder / "train").iterdir()).parent.joinpath("Bag")
    elif what == "only one class left":
        for path in folder.glob("*/*"):
            if path.name != "Bag":
                shutil.rmtree(path)
    elif what == "other classes in val":
        (folder / "val/Bag").rename(folder / "val/Sack")
    elif what == "no val":
        shutil.rmtree(folder / "val")
    return folder


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", "there is no folder"),
        ("a file", "there is no folder"),
        ("no images", "has class folders without images"),
        ("an empty class", "has class folders without images: Bag; fill or remove them"),
        ("one class", "holds images but no class folders"),
        ("only one class left", "holds only the class folder Bag; a classifier needs two classes or more"),
        ("other classes in val", "missing: Bag; unexpected: Sack"),
        ("no val", "has train but no folder val"),
    ],
)
def test_a_wrong_folder_is_one_sentence(program: Program, folder: Path, what: str, message: str) -> None:
    root = spoil(folder, what)
    assert message in program(*FIT, *SIZE, "--data.init_args.root", root).refusal()
    assert message in program("data", "check", root).refusal()
    assert not list(Path("run").iterdir()), "nothing is left of a run that never began"


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_damaged_image_ends_training_with_its_name(program: Program, folder: Path, num_workers: int) -> None:
    """Also where it is a worker process that stumbles, which sends a whole traceback."""
    for path in (folder / "train").rglob("*.png"):
        path.write_bytes(path.read_bytes()[:60])
    settings = ["--data.init_args.root", folder, "--data.init_args.num_workers", num_workers]
    message = program(*FIT, *SIZE, *settings, "--trainer.limit_val_batches", 0).refusal()
    assert re.search(r"train/[\w -]+/train_\d+\.png", message), message
    assert "`internimage data check FOLDER` finds all such images" in message


def test_a_damaged_image_may_be_left_out(program: Program, folder: Path) -> None:
    """A share may be; the page is made, and what was left out is listed in the run's folder."""
    damaged = next((folder / "train/Bag").iterdir())
    damaged.write_bytes(b"")
    whole = ["--data.init_args.root", folder, "--data.init_args.batch_size", 6, "--trainer.limit_train_batches", "1.0"]
    outcome = program(*FIT, *SIZE, *whole, "--unreadable", 0.2)
    assert outcome.status == 0, outcome
    assert "training pictures that could not be read: 1, listed in run/unreadable.jsonl" in outcome.err
    assert str(damaged) in Path("run/unreadable.jsonl").read_text(encoding="utf-8")
    assert "more than the share of 0.01" in program(*FIT, *SIZE, *whole, "--overwrite").refusal()
    assert "can't be read" not in program(*FIT, *SIZE, *whole, "--overwrite", "--unreadable", 0).refusal()
    assert "must be in (0, 1], got 2.0" in program(*FIT, *SIZE, *whole, "--overwrite", "--unreadable", 2).refusal()


def test_a_folder_trains_tests_and_predicts(program: Program, folder: Path) -> None:
    """The path of a person with pictures: names with spaces, colour, another size; no test images."""
    (folder / "train/Bag").rename(folder / "train/sac à main")
    (folder / "val/Bag").rename(folder / "val/sac à main")
    for path in folder.rglob("*.png"):
        Image.open(path).convert("RGB").resize((50, 40)).save(path)
    data = ["--data.init_args.root", folder, "--data.init_args.image_size", 32]
    assert program(*FIT, *data, "--trainer.max_epochs", 1, "--model.init_args.optimizer.warmup_epochs", 0).status == 0
    outcome = program("test", "--run", "run")
    assert outcome.status == 0, outcome
    assert "no test images: the validation images stand in" in outcome.err
    picture = next((folder / "val/sac à main").iterdir())
    outcome = program("predict", picture, "--weights", "run", "--output", "out")
    assert outcome.status == 0, outcome
    assert '"sac à main"' in Path("run/model.json").read_text(encoding="utf-8")


def test_the_demo_refuses_to_delete_what_is_not_its_own(program: Program) -> None:
    export_samples(Path("mine/pictures"), "test", 1)
    assert "mine holds other files" in program("quickstart", "--run", "mine").refusal()
    assert len(list(Path("mine").rglob("*.png"))) == 1
