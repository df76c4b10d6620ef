"""Folder-per-class datasets: what they yield, and what each malformed tree is told."""

from __future__ import annotations

import tarfile
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from internimage.data import FolderDataset, ImageReadError, labels_in, to_tensor
from internimage.structures import LabelMap, Preprocess

PREPROCESS = Preprocess(size=8, mean=(0.0,) * 3, std=(1.0,) * 3)
TRANSFORM = partial(to_tensor, preprocess=PREPROCESS)
CIFAR10 = Path(__file__).resolve().parents[3] / "shared" / "data" / "cifar10" / "test.tar.xz"


def save(path: Path, grey: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (grey,) * 3).save(path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Pictures of grey 0, 51, 102, 153, 204, whose classes are bird, bird, cat, cat, dog."""
    names = ["bird/a.png", "bird/deep/b.png", "cat/a.png", "cat/b.jpg", "dog/a.png"]
    for index, name in enumerate(names):
        save(tmp_path / name, 51 * index)
    (tmp_path / "README.txt").touch()
    (tmp_path / "cat" / "notes.txt").touch()
    save(tmp_path / ".cache" / "x.png")
    return tmp_path


def test_pairs_are_in_order(tree):
    dataset = FolderDataset(tree, transform=TRANSFORM)
    assert len(dataset) == 5
    assert dataset.labels == LabelMap(("bird", "cat", "dog"))
    assert dataset.targets == [0, 0, 1, 1, 2]
    names = ["bird/a.png", "bird/deep/b.png", "cat/a.png", "cat/b.jpg", "dog/a.png"]
    assert dataset.paths == [tree / name for name in names]
    for index, (image, target) in enumerate(dataset[index] for index in range(5)):
        assert target == dataset.targets[index]
        torch.testing.assert_close(image, torch.full((3, 8, 8), index / 5), atol=0.01, rtol=0)


def test_labels_decide_the_order(tree):
    dataset = FolderDataset(tree, labels=LabelMap(("dog", "bird", "cat")), transform=TRANSFORM)
    assert dataset.targets == [0, 1, 1, 2, 2]
    assert [path.parent.name for path in dataset.paths][:2] == ["dog", "bird"]


def test_labels_that_no_folder_can_have_are_found(tree):
    (tree / "dog").rename(tree / "dog-wolf")
    dataset = FolderDataset(tree, labels=LabelMap(("bird", "dog/wolf", "cat")), transform=TRANSFORM)
    assert dataset.labels[1] == "dog/wolf"
    assert dataset.targets.count(1) == 1


def test_grey_images(tree):
    transform = partial(to_tensor, preprocess=Preprocess(size=8, mean=(0.0,), std=(1.0,)))
    assert FolderDataset(str(tree), transform=transform, in_chans=1)[2][0].shape == (1, 8, 8)


def test_linked_class_folders_are_classes(tree, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    save(elsewhere / "a.png")
    (tree / "wolf").symlink_to(elsewhere)
    assert FolderDataset(tree, transform=TRANSFORM).targets.count(3) == 1


def test_subset(tree):
    dataset = FolderDataset(tree, transform=TRANSFORM)
    part = dataset.subset([4, 0])
    assert (len(part), part.targets, part.labels) == (2, [2, 0], dataset.labels)
    assert part[0][1] == 2
    assert len(dataset) == 5


@pytest.mark.parametrize("workers", [{"num_workers": 0}, {"num_workers": 1, "multiprocessing_context": "spawn"}])
def test_loads_in_batches(tree, workers):
    images, targets = next(iter(DataLoader(FolderDataset(tree, transform=TRANSFORM), batch_size=5, **workers)))
    assert images.shape == (5, 3, 8, 8)
    assert targets.tolist() == [0, 0, 1, 1, 2]


def test_unreadable_image_is_named_when_it_is_read(tree):
    (tree / "cat" / "b.jpg").write_bytes(b"")
    dataset = FolderDataset(tree, transform=TRANSFORM)
    assert dataset[2][1] == 1
    with pytest.raises(ImageReadError, match=r"cannot read .*b\.jpg: it is empty"):
        dataset[3]


def error_for(root: Path, **options) -> str:
    with pytest.raises(ValueError, match=str(root)) as caught:
        FolderDataset(root, transform=TRANSFORM, **options)
    return str(caught.value)


def test_missing_root(tmp_path):
    root = tmp_path / "missing"
    assert error_for(root) == f"there is no folder {root}; give the folder that holds one folder per class"


def test_images_directly_in_root(tmp_path):
    save(tmp_path / "a.png")
    fix = "make one folder per class there, with its images inside"
    assert error_for(tmp_path) == f"{tmp_path} holds images but no class folders; {fix}"


def test_empty_root(tmp_path):
    assert f"{tmp_path} holds no class folders; make one folder per class" in error_for(tmp_path)


def test_one_class(tmp_path):
    save(tmp_path / "cat" / "a.png")
    assert "holds only the class folder cat; a classifier needs two classes or more" in error_for(tmp_path)


def test_all_empty_classes_are_named(tree):
    (tree / "ant").mkdir()
    (tree / "zebra" / "deep").mkdir(parents=True)
    (tree / "zebra" / "notes.txt").touch()
    assert error_for(tree) == f"{tree} has class folders without images: ant, zebra; fill or remove them"


def test_classes_that_differ_from_the_labels_are_named(tree):
    message = error_for(tree, labels=LabelMap(("bird", "cat", "wolf", "fox")))
    assert message.endswith("do not match the classes asked for; missing: wolf, fox; unexpected: dog")
    assert error_for(tree, labels=LabelMap(("bird", "cat"))).endswith("; unexpected: dog")
    assert error_for(tree, labels=LabelMap(("bird", "cat", "dog", "elk"))).endswith("; missing: elk")


def test_a_root_of_splits_is_not_taken_for_two_classes(tmp_path):
    for name in ("train/cat/a.png", "train/dog/a.png", "val/cat/a.png", "val/dog/a.png"):
        save(tmp_path / name)
    fix = f"give {tmp_path / 'train'}, or use open_split"
    assert error_for(tmp_path) == f"{tmp_path} holds splits (train, val), not class folders; {fix}"


def test_a_class_may_be_called_train(tmp_path):
    save(tmp_path / "train" / "a.png")
    save(tmp_path / "bus" / "a.png")
    assert labels_in(tmp_path).names == ("bus", "train")
    assert FolderDataset(tmp_path, transform=TRANSFORM).targets == [0, 1]


@pytest.mark.shared
@pytest.mark.skipif(not CIFAR10.is_file(), reason="the shared image sets are not here")
def test_real_photographs(tmp_path):
    with tarfile.open(CIFAR10) as archive:
        for member in archive:
            if member.name.startswith("bird"):
                break
            if Path(member.name).name < "0004.jpg":
                archive.extract(member, tmp_path, filter="data")
    dataset = FolderDataset(tmp_path, transform=TRANSFORM)
    assert dataset.labels.names == ("airplane", "automobile")
    assert dataset.targets == [0] * 4 + [1] * 4
    images = torch.stack([image for image, _ in dataset])
    assert len({tuple(image.flatten().tolist()) for image in images}) == 8
    assert images.std((1, 2, 3)).min() > 0.02
