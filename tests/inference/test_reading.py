"""Reading ahead: order, bounds, errors, and an early end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from internimage.data import ImageReadError
from internimage.inference.reading import in_batches, read_ahead


@pytest.mark.parametrize("workers", [0, 1, 5])
def test_order_is_kept(workers: int) -> None:
    def read(number: int) -> int:
        time.sleep(0.001 * (number % 3))
        return number

    assert list(read_ahead(range(40), read, workers=workers, ahead=4)) == list(range(40))


def test_no_more_than_asked_for_is_read_ahead() -> None:
    asked: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            asked.append(number)
            yield number

    results = read_ahead(numbers(), lambda number: number, workers=3, ahead=5)
    for number in range(20):
        assert next(results) == number
        assert len(asked) <= number + 6
    results.close()


def test_threads_read_while_results_are_used() -> None:
    others: set[int] = set()
    meeting = threading.Barrier(3, timeout=20)

    def read(number: int) -> int:
        others.add(threading.get_ident())
        # Three must be here at a time, or the barrier breaks.
        meeting.wait()
        return number

    assert list(read_ahead(range(9), read, workers=3, ahead=3)) == list(range(9))
    assert threading.get_ident() not in others


def test_an_error_ends_it_and_its_threads() -> None:
    def read(number: int) -> int:
        if number == 7:
            raise RuntimeError("seven")
        return number

    results = read_ahead(range(100), read, workers=2, ahead=4)
    with pytest.raises(RuntimeError, match="seven"):
        list(results)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("images")]


@pytest.mark.parametrize("workers", [0, 2])
def test_images_that_cannot_be_read_keep_their_place(workers: int) -> None:
    batches: list[list[str]] = []

    def read(name: object) -> str:
        if "bad" in str(name):
            raise ImageReadError(f"cannot read {name}")
        return str(name)

    def predict(batch: object) -> list[str]:
        batches.append([image for image, _ in batch])  # pyright: ignore
        return batches[-1]

    names = ["a", "bad 1", "b", "c", "bad 2", "bad 3", "d"]
    results = list(in_batches(names, read, predict, batch_size=2, workers=workers))
    assert [str(result).removeprefix("cannot read ") for result in results] == names
    # The bad ones count: what goes together does not depend on them.
    assert batches == [["a"], ["b", "c"], ["d"]]


@pytest.mark.parametrize(("batch_size", "workers"), [(0, 0), (1, -1)])
def test_bounds(batch_size: int, workers: int) -> None:
    with pytest.raises(ValueError, match=r"or more|at least 1"):
        list(in_batches(["a"], str, list, batch_size=batch_size, workers=workers))
