"""The page in a real browser: pictures, answers, clicks, and files that are no pictures."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from internimage import Classifier
from support.demo import Server, points_of, wait_for_other_points

Open = Callable[..., Any]


def drop(page: Any, name: str, data: bytes) -> None:
    """Choose a file as a visitor does."""
    page.set_input_files("#drop input[type=file]", {"name": name, "mimeType": "image/jpeg", "buffer": data})


def click(page: Any, across: float, down: float) -> None:
    """Click on the picture, at shares of its width and height."""
    picture = page.locator("#view img")
    box = picture.bounding_box()
    picture.click(position={"x": across * box["width"], "y": down * box["height"]})


def encoded(image: Image.Image, format: str, **settings: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **settings)
    return stream.getvalue()


def test_a_picture_its_class_and_where_a_block_looks(open_page: Open, server: Server, photo: Path) -> None:
    page = open_page(server.url)
    assert not page.is_visible("#where")
    drop(page, "my cat.jpg", photo.read_bytes())
    page.wait_for_selector("#view img")
    expected = Classifier(device="cpu")(photo)
    assert page.inner_text("#verdict .verdict") == f"{expected.label}, {100 * expected.score:.1f}%"
    names = page.inner_text("#shares")
    assert all(name in names for name, _ in expected.top(5))

    before, words = points_of(page), page.inner_text("#readout")
    page.click("#stage label:has-text('3')")
    before = wait_for_other_points(page, before)
    assert page.input_value("#block input") == "3 of 3"
    assert "72 points" in page.inner_text("#readout") != words

    page.click("#group input")
    page.get_by_role("option", name="5", exact=True).click()
    before = wait_for_other_points(page, before)
    assert "9 points" in page.inner_text("#readout")

    click(page, 0.25, 0.75)
    wait_for_other_points(page, before)
    # The cell of stage 3, 8 pixels wide, that holds a quarter and three quarters of 32.
    page.wait_for_selector("#readout >> text=place (8, 24) of the network's 32 x 32 pixels")

    page.click("#size label:has-text('whole, 128')")
    page.wait_for_selector("#readout >> text=of the network's 192 x 128 pixels")


def test_the_picture_changes_where_it_was_clicked(open_page: Open, server: Server) -> None:
    page = open_page(server.url)
    page.click("#cat")
    page.wait_for_selector("#view img")
    pictures = []
    for share in (0.2, 0.8):
        before = points_of(page)
        click(page, share, share)
        wait_for_other_points(page, before)
        drawn = page.request.get(points_of(page)).body()
        pictures.append(np.asarray(Image.open(io.BytesIO(drawn)).convert("L"), dtype=np.float32))
    changed = np.argwhere(np.abs(pictures[0] - pictures[1]) > 20) / pictures[0].shape
    # Around the two places, and nowhere between.
    assert len(changed) > 100
    assert not ((changed > 0.4) & (changed < 0.6)).all(axis=1).any()


BAD = {
    "text.jpg": (b"no picture at all, just words", "not an image of a known format"),
    "empty.jpg": (b"", "it is empty"),
    "vector.svg": (b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', "not an image"),
    "huge.png": (encoded(Image.new("1", (20_000, 20_000)), "PNG"), "more than the limit of 50,000,000 pixels"),
}


def test_files_that_are_no_pictures_get_one_sentence(open_page: Open, server: Server, photo: Path) -> None:
    page = open_page(server.url)
    for name, (data, reason) in {**BAD, "cut.jpg": (photo.read_bytes()[:9000], "truncated or damaged")}.items():
        drop(page, name, data)
        page.wait_for_selector(f"#problem >> text={reason}")
        said = page.inner_text("#problem")
        assert said.startswith("Cannot read the picture: "), name
        assert said.count("\n") == 0, said
        assert "Traceback" not in page.inner_text("body")
        assert not page.is_visible("#where")
    # The server goes on, and the message does.
    drop(page, "cat.jpg", photo.read_bytes())
    page.wait_for_selector("#view img")
    assert not page.is_visible("#problem")
    drop(page, "text.jpg", b"words")
    page.wait_for_selector("#problem")
    assert not page.is_visible("#where")
    assert not page.is_visible("#verdict")


def test_too_large_a_file_and_pictures_that_are_changed(open_page: Open, server: Server) -> None:
    page = open_page(server.url)
    drop(page, "large.png", bytes(1_100_000))
    page.wait_for_selector("text=/exceed/i")
    frames = [Image.new("RGB", (40, 30), (20 * number, 90, 40)) for number in range(4)]
    drop(page, "moving.gif", encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    page.wait_for_selector("#verdict >> text=only the first picture")
    drop(page, "wide.png", encoded(Image.new("L", (3200, 400), 90), "PNG"))
    page.wait_for_selector("#verdict >> text=from 3200 x 400 to 1600 x 200 pixels")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (390, "light")])
def test_it_fits_the_screen(open_page: Open, server: Server, width: int, scheme: str) -> None:
    page = open_page(server.url, viewport={"width": width, "height": 844}, color_scheme=scheme)
    page.click("#cat")
    page.wait_for_selector("#view img")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    picture = page.locator("#view img").bounding_box()
    assert picture["width"] > 0.4 * width
    shot = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L"))
    # A page of text on a ground, not an empty one; light or dark as the visitor likes it.
    assert shot.std() > 5
    assert (np.median(shot) > 200) == (scheme == "light")
