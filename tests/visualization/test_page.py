"""The page of a run: valid, self-contained, escaped, and written at once."""

from __future__ import annotations

import base64
import io
import stat
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from internimage.structures import LabelMap
from internimage.visualization.classification import confusion_matrix_figure, curves_figure
from internimage.visualization.page import Picture, RunReport, Table, write_report

NASTY = """<b>&"'</title><script>"""
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Reads a page strictly: every element must be closed in the order in which it was opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute of {tag} occurs twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data.strip()))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text_of(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]


FULL = RunReport(
    title="My run",
    task="image classification",
    summary={"Accuracy": "89.4%", "Parameters": 1234567, "Loss": 0.312345, "Device": "CPU, 2 threads of 16"},
    settings={"Optimiser": "AdamW"},
    pictures=(
        Picture("Photo", "A photo.", Image.new("RGB", (40, 30), "red")),
        Picture("Curves", "", curves_figure([{"epoch": 0, "lr": 0.1}])),
        Picture("Confusion", "Who is who.", confusion_matrix_figure(np.eye(2), LabelMap(("a", "b")))),
    ),
    tables=(
        Table("Short", "Words.", ("name", "number", "word"), [("1", 2.5, "x"), ("2", "—", "y")]),
        Table("Long", "", ("name",), [(str(index),) for index in range(31)]),
        Table("Empty", "", ("name", "number"), []),
    ),
    commands=(("Go on", 'internimage fit --name "a & b"'),),
    files=(("model.safetensors", "the weights"), ("absent.csv", "nothing"), ("javascript:alert(1)", "odd")),
    config_yaml="a: 1\nb:\n  c: <d>\n",
)


@pytest.fixture(scope="module")
def full_page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    for name in ("model.safetensors", "javascript:alert(1)"):
        (folder / name).touch()
    return Page(write_report(folder / "report.html", FULL).read_text("utf-8"))


def test_the_frame_of_the_page(full_page):
    assert full_page.all("html") == [{"lang": "en"}]
    assert full_page.text_of("title") == ["My run · image classification"]
    assert full_page.text_of("h1") == ["My run"]
    metas = full_page.all("meta")
    assert {"charset": "utf-8"} in metas
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in metas
    assert {"name": "color-scheme", "content": "light dark"} in metas
    (css,) = full_page.text_of("style")
    for rule in ("prefers-color-scheme: dark", "@media print", "max-width"):
        assert rule in css


def test_the_page_needs_nothing_else(full_page, tmp_path):
    text = write_report(tmp_path / "report.html", FULL).read_text("utf-8")
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in full_page.elements}
    for forbidden in ("http:", "https:", "//", "@import", "<script", "url("):
        # Two slashes in a row also occur inside base64.
        assert forbidden not in "".join(part.partition('"')[2] for part in text.split("data:image/png;base64,"))
    for tag, attributes in full_page.elements:
        for name in ("src", "href"):
            assert (attributes.get(name) or "./").startswith(("./", "data:image/png;base64,")), tag


def test_every_picture_is_embedded(full_page):
    images = full_page.all("img")
    assert [image["alt"] for image in images] == ["Photo", "Curves", "Confusion"]
    for attributes, factor in zip(images, (1, 2, 2), strict=True):
        data = base64.b64decode(attributes["src"].removeprefix("data:image/png;base64,"), validate=True)
        with Image.open(io.BytesIO(data)) as image:
            assert image.format == "PNG"
            shown = int(attributes["width"]), int(attributes["height"])
            assert shown == (image.width // factor, image.height // factor)
            # Figures have no background, so that they also read well on a dark page.
            assert (image.convert("RGBA").getpixel((0, 0))[3] == 0) == (factor == 2)
    assert full_page.text_of("figcaption") == ["A photo.", "Who is who."]


def test_tiles_settings_commands_and_configuration(full_page):
    assert full_page.text_of("dt") == list(FULL.summary)
    assert full_page.text_of("dd") == ["89.4%", "1,234,567", "0.3123", "CPU, 2 threads of 16"]
    assert [attributes.get("class") for attributes in full_page.all("dd")] == [None, None, None, "long"]
    assert "Optimiser" in full_page.text_of("th")
    assert "AdamW" in full_page.text_of("td")
    code = full_page.text_of("code")
    assert 'internimage fit --name "a & b"' in code
    assert "a: 1\nb:\n  c: <d>" in code


def test_only_files_that_exist_are_links(full_page):
    assert [link["href"] for link in full_page.all("a")] == ["./model.safetensors", "./javascript%3Aalert%281%29"]
    assert "absent.csv" in full_page.text_of("code")


def test_columns_of_numbers_are_aligned_and_long_tables_folded(full_page):
    classes = [attributes.get("class") for attributes in full_page.all("th") if attributes.get("scope") == "col"]
    assert classes[:3] == [None, "number", None]
    assert full_page.text_of("summary") == ["31 rows", "Complete configuration (YAML)"]


def test_every_text_is_escaped(tmp_path):
    nasty = RunReport(
        title=NASTY,
        task=NASTY,
        summary={NASTY: NASTY},
        settings={NASTY: NASTY},
        pictures=(Picture(NASTY, NASTY, Image.new("L", (4, 4))),),
        tables=(Table(NASTY, NASTY, (NASTY,), [(NASTY,)]),),
        commands=((NASTY, NASTY),),
        files=((NASTY, NASTY),),
        config_yaml=NASTY,
    )
    text = write_report(tmp_path / "report.html", nasty).read_text("utf-8")
    page = Page(text)
    assert "<b>" not in text
    assert not page.all("script")
    assert page.all("img")[0]["alt"] == NASTY
    for tag in ("h1", "h2", "p", "dt", "dd", "th", "td", "figcaption", "code"):
        assert NASTY in page.text_of(tag), tag


def test_an_empty_report_is_a_valid_page(tmp_path):
    page = Page(write_report(tmp_path / "report.html", RunReport("Nothing yet", "image classification")).read_text())
    assert page.text_of("h1") == ["Nothing yet"]
    assert not {"section", "table", "img", "dl", "details"} & {tag for tag, _ in page.elements}


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "YCbCr", "F"])
def test_pictures_of_every_mode_are_embedded(mode, tmp_path):
    picture = Picture("Odd", "", Image.new("L", (5, 4), 1).convert(mode))
    assert Page(write_report(tmp_path / "a.html", RunReport("a", "b", pictures=[picture])).read_text()).all("img")


def test_the_same_report_gives_the_same_bytes(tmp_path):
    first, second = (write_report(tmp_path / name, FULL).read_bytes() for name in ("a.html", "b.html"))
    assert first == second


def test_folders_are_made_and_nothing_else_is_left(tmp_path):
    path = write_report(tmp_path / "runs" / "demo" / "report.html", RunReport("a", "b"))
    assert path == tmp_path / "runs" / "demo" / "report.html"
    assert list(path.parent.iterdir()) == [path]
    (tmp_path / "plain.txt").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain.txt").stat().st_mode)


def test_a_failure_leaves_the_old_page(tmp_path):
    path = write_report(tmp_path / "report.html", RunReport("old", "b"))
    broken = replace(FULL, pictures=[Picture("Broken", "", "no picture")])
    with pytest.raises(ValueError, match="'Broken' is a str"):
        write_report(path, broken)
    assert "old" in path.read_text()
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_while_writing_leaves_no_draft(tmp_path):
    with pytest.raises(UnicodeEncodeError):
        write_report(tmp_path / "report.html", RunReport("\ud800", "b"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_page(tmp_path):
    with pytest.raises(ValueError, match="is a folder"):
        write_report(tmp_path, RunReport("a", "b"))


def test_ragged_tables_are_refused():
    with pytest.raises(ValueError, match="row 1 of table 'T' has 1 cells but the header has 2"):
        Table("T", "", ("a", "b"), [("x", 1), ("y",)])
