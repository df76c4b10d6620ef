"""An image in, a classification out: every kind of source, batches, failures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from internimage import Classification, Classifier, LabelMap, Preprocess
from internimage.data import ImageReadError, read_image, to_tensor

Pictures = list[NDArray[np.uint8]]


@pytest.fixture(scope="module")
def classifier(weights: Path) -> Classifier:
    return Classifier(weights, device="cpu")


def test_it_says_what_the_network_says(
    classifier: Classifier, network: nn.Module, pictures: Pictures, labels: LabelMap, preprocess: Preprocess
) -> None:
    """Not only consistent with itself: equal to preprocessing, network and softmax done by hand."""
    with torch.inference_mode():
        inputs = torch.stack([to_tensor(read_image(picture), preprocess) for picture in pictures])
        expected = network(inputs).softmax(-1)
    assert expected.max(-1).indices.unique().numel() > 1, "the pictures must differ in their answers"
    results = classifier(pictures)
    torch.testing.assert_close(torch.tensor([r.probabilities for r in results]), expected, rtol=1e-4, atol=1e-5)
    assert [r.label for r in results] == [labels[int(index)] for index in expected.argmax(-1)]
    assert all(sum(r.probabilities) == pytest.approx(1, abs=1e-5) for r in results)


def test_every_kind_of_source_gives_the_same(classifier: Classifier, pictures: Pictures, folder: list[Path]) -> None:
    sources = [folder[0], str(folder[0]), folder[0].read_bytes(), Image.open(folder[0]), pictures[0]]
    results = [classifier(source) for source in sources]
    assert all(isinstance(result, Classification) for result in results), "one image gives one result, not a list"
    assert len({result.probabilities for result in results}) == 1
    assert [result.source for result in results] == [str(folder[0]), str(folder[0]), None, None, None]


def test_a_list_gives_a_list_in_order(classifier: Classifier, folder: list[Path]) -> None:
    single = [classifier(path) for path in folder]
    for many in (folder, tuple(folder), [str(path) for path in folder]):
        results = classifier(many)
        assert isinstance(results, list)
        assert [result.source for result in results] == [str(path) for path in folder]
        for one, result in zip(single, results, strict=True):
            assert result.probabilities == pytest.approx(one.probabilities, abs=1e-5)
    assert isinstance(classifier(folder[:1]), list)
    assert classifier([]) == []


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_the_batch_size_changes_nothing(classifier: Classifier, folder: list[Path], batch_size: int) -> None:
    expected = [result.probabilities for result in classifier(folder, batch_size=2)]
    results = [result.probabilities for result in classifier(folder, batch_size=batch_size)]
    np.testing.assert_allclose(results, expected, atol=1e-5)


def test_a_stream_is_lazy_and_ordered(classifier: Classifier, folder: list[Path]) -> None:
    """A folder of millions never has to be listed at once."""
    taken: list[Path] = []

    def endless() -> Iterator[Path]:
        while True:
            taken.append(folder[len(taken) % len(folder)])
            yield taken[-1]

    stream = classifier.stream(endless(), batch_size=2)
    first = [next(stream) for _ in range(4)]
    assert [result.source for result in first if isinstance(result, Classification)] == [str(p) for p in folder[:4]]
    assert len(taken) == 4


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_a_stream_goes_on_over_bad_files(
    classifier: Classifier, folder: list[Path], tmp_path: Path, batch_size: int
) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "cut.png").write_bytes(folder[1].read_bytes()[:200])
    order = [tmp_path / "empty.png", folder[0], tmp_path / "text.jpg", tmp_path / "cut.png", folder[1]]
    order.append(tmp_path / "missing.png")
    results = list(classifier.stream(order, batch_size=batch_size))
    assert [isinstance(result, Classification) for result in results] == [False, True, False, False, True, False]
    for path, result in zip(order, results, strict=True):
        if isinstance(result, Classification):
            assert result.source == str(path)
            assert result.probabilities == pytest.approx(classifier(path).probabilities, abs=1e-5)
        else:
            assert isinstance(result, ImageReadError)
            assert str(path) in str(result)
    with pytest.raises(ImageReadError, match=r"text\.jpg"):
        classifier([folder[0], tmp_path / "text.jpg"])


def test_bad_requests_are_named(classifier: Classifier, folder: list[Path]) -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        classifier(folder[0], batch_size=0)
    with pytest.raises(ImageReadError, match="channels last"):
        classifier(np.zeros((2, 40, 40, 3), np.uint8))
    with pytest.raises(ImageReadError, match="type int"):
        classifier([3])


def test_a_grey_network_takes_any_picture(folder: list[Path], tmp_path: Path) -> None:
    from internimage import create_model, save_checkpoint

    grey = Preprocess(size=28, mean=(0.3,), std=(0.3,))
    model = create_model("internimage_femto", num_classes=2, in_chans=1)
    path = save_checkpoint(model, tmp_path / "grey.safetensors", labels=LabelMap(("x", "y")), preprocess=grey)
    result = Classifier(path, device="cpu")(folder[0])
    assert result.labels.names == ("x", "y")


def test_the_network_is_in_evaluation_mode(classifier: Classifier, folder: list[Path]) -> None:
    assert not any(module.training for module in classifier.model.modules())
    before = {name: value.clone() for name, value in classifier.model.state_dict().items()}
    classifier(folder)
    after = classifier.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items()), "prediction changed a buffer"


@pytest.mark.parametrize("device", ["cuda:77", "nonsense", "meta:3:4", ""])
def test_a_device_that_is_not_here_is_named(weights: Path, device: str) -> None:
    with pytest.raises(ValueError, match="is not available here") as error:
        Classifier(weights, device=device)
    assert repr(device) in str(error.value)
    assert "\n" not in str(error.value)


def test_scores_that_are_no_numbers_are_refused(weights: Path, pictures: Pictures) -> None:
    """As those of a training that diverged."""
    broken = Classifier(weights, device="cpu")
    with torch.no_grad():
        broken.model.state_dict()["head.fc.bias"].fill_(float("nan"))
    with pytest.raises(ValueError, match=r"animals\.safetensors gives scores that are not finite; .* other weights"):
        broken(pictures[0])
