"""Pages and figures that programs make are as the programs make them now, and say what the code says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from PIL import Image

from internimage.cli.configs import shipped_configs
from internimage.model.weights import DETECTORS, SEGMENTERS, SHIPPED, WEIGHTS
from support.documentation.commands import REPOSITORY
from support.documentation.modules import module_in_docs

DOCS = REPOSITORY / "docs"


def test_tables_are_as_new() -> None:
    for name, text in module_in_docs("tables").pages().items():
        assert (DOCS / name).read_text(encoding="utf-8") == text, "older than the code: run python docs/tables.py"


def test_every_weight_has_a_card_and_every_released_recipe_a_row() -> None:
    cards = "".join(path.read_text(encoding="utf-8") for path in (DOCS / "models").glob("*.md"))
    for row in (*WEIGHTS.values(), *DETECTORS.values(), *SEGMENTERS.values()):
        assert f"| `{row.name}` |" in cards, row.name
        assert f"`{row.file}`" in cards, row.file
    assert all(name in cards for name in SHIPPED)
    table = (DOCS / "migrate" / "recipes.md").read_text(encoding="utf-8")
    released = {Path(name).name for name in shipped_configs() if "internimage_" in Path(name).name}
    assert released == set(re.findall(r"\| `(\w*internimage_\w+)` \|$", table, re.MULTILINE))


def test_figures_can_be_drawn_again_and_are_all_shown(tmp_path: Path) -> None:
    drawn = {path.name for path in module_in_docs("figures").main(tmp_path)}
    page = (DOCS / "explain" / "operator.md").read_text(encoding="utf-8")
    assert drawn == set(re.findall(r"images/(operator_\w+\.svg)#", page))
    assert drawn <= {path.name for path in (DOCS / "images").iterdir()}
    # The value in the figure is the one of the page's example.
    assert "# 4.12" in page
    assert (tmp_path / "operator_bilinear.svg").stat().st_size > 10_000


def test_pictures_are_whole_and_small() -> None:
    for path in (DOCS / "images").iterdir():
        assert path.stat().st_size < 1_000_000, path
        if path.suffix in (".png", ".jpg"):
            with Image.open(path) as picture:
                picture.load()


@pytest.fixture(scope="module")
def extras() -> dict[str, list[str]]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {"(none)": project["dependencies"], **project["optional-dependencies"]}


def distributions(needs: list[str], extras: dict[str, list[str]]) -> set[str]:
    """Names of what these requirements install, through our own extras."""
    found: set[str] = set()
    for need in needs:
        if own := re.match(r"internimage-torch\[([\w,]+)\]", need):
            for extra in own[1].split(","):
                found |= distributions(extras[extra], extras)
        else:
            found.add(re.split(r"[\[>=<]", need)[0])
    return found


def test_the_table_of_extras_is_that_of_pyproject(extras: dict[str, list[str]]) -> None:
    page = (DOCS / "install.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`\w+`|\(none\)) \| .* \| (.*) \|$", page, re.MULTILINE)
    listed = {name.strip("`"): brings for name, brings in rows}
    assert set(listed) == set(extras)
    for name, brings in listed.items():
        if name not in ("dev", "all"):
            assert set(brings.split(", ")) == distributions(extras[name], extras), name
    assert distributions(extras["all"], extras) == {
        need for name in set(extras) - {"(none)", "docs", "dev"} for need in distributions(extras[name], extras)
    }
