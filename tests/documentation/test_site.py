"""The documentation as a site: strictly built, complete, and asking nothing of another machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import which
from threading import Thread
from types import ModuleType

import pytest

import internimage
from support.documentation.commands import REPOSITORY
from support.documentation.modules import module_in_docs

CHROMIUM = which("chromium") or which("chromium-browser")
# Of an element: what a browser fetches without being asked.
FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    return module_in_docs("hooks")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a warning, such as of a broken link, would have ended the building."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, env={**os.environ, **QUIET})
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


QUIET = {"NO_MKDOCS_2_WARNING": "1"}


class Fetches(HTMLParser):
    """Addresses that a page makes a browser fetch, and those that it leads to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched, self.led = set[str](), set[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "link" and given.get("rel") in ("canonical", "next", "prev"):
            return
        if address := given.get(FETCHED.get(tag, "")):
            self.fetched.add(address)
        if tag == "a" and "href" in given:
            self.led.add(given["href"].partition("#")[0])


def test_no_page_fetches_from_another_machine(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 60
    for page in pages:
        outside = [address for address in Fetches(page.read_text()).fetched if re.match(r"(https?:)?//", address)]
        assert not outside, f"{page} fetches {outside}"
    for style in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", style.read_text()), style


def test_every_page_is_reached_from_the_first_by_links(site: Path) -> None:
    first = site / "index.html"
    reached, waiting = {first}, [first]
    while waiting:
        page = waiting.pop()
        for address in Fetches(page.read_text()).led:
            target = (page.parent / address).resolve() if address and ":" not in address else page
            if target.suffix == ".html" and target.is_file() and target not in reached:
                reached.add(target)
                waiting.append(target)
    left = set(site.rglob("*.html")) - reached - {site / "404.html"}
    assert not left


def test_pages_of_docs_and_from_outside_are_in_the_site(site: Path, hooks: ModuleType) -> None:
    sources = {path.relative_to(REPOSITORY / "docs").as_posix() for path in (REPOSITORY / "docs").rglob("*.md")}
    outside = hooks.pages_from_outside()
    assert {"ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md"} < set(outside)
    for source in sources | set(outside.values()):
        page = site / re.sub(r"README\.md$", "index.html", source).replace(".md", ".html")
        assert page.is_file(), source


def test_the_reference_has_every_public_name(site: Path, hooks: ModuleType) -> None:
    index = (site / "reference" / "index.html").read_text()
    for name in internimage.__all__:
        found = re.search(rf'<a [^>]*href="(\w+\.html)#([\w.]+)"[^>]*><code>internimage\.{name}</code>', index)
        assert found, name
        assert f'id="{found[2]}"' in (site / "reference" / found[1]).read_text(), name


def test_the_reference_has_every_room(hooks: ModuleType) -> None:
    shown = {module.split(".")[1] for _, modules in hooks.REFERENCE.values() for module in modules}
    rooms = {path.parent.name for path in (REPOSITORY / "src" / "internimage").glob("*/__init__.py")}
    assert rooms - shown == {"cli"}


def test_examples_of_docstrings_are_code(site: Path) -> None:
    page = (site / "reference" / "operator.html").read_text()
    assert "<blockquote>" not in page
    assert "&gt;&gt;&gt; " in re.sub(r"<[^>]+>", "", page)


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("[a](training.md#on-slurm)", "[a](training.md#on-slurm)"),
        ("[a](../../ARCHITECTURE.md)", "[a](../explain/architecture.md)"),
        ("[a](../../README.md)", "[a](../index.md)"),
        ("[a](../guides)", "[a](README.md)"),
        ("[`a` b](../../src/internimage/ops/dcnv3/README.md#memory)", "[`a` b](../explain/dcnv3.md#memory)"),
        ("[a](../../benchmarks/results)", "a"),
        ("[a](../../src/internimage/cli/main.py)", "a"),
        ("[a](https://example.org/x)", "[a](https://example.org/x)"),
        ("`[a](../../README.md)`", "`[a](../../README.md)`"),
        ("```text\n[a](../../README.md)\n```", "```text\n[a](../../README.md)\n```"),
        ("![a](../images/x.png)", "![a](../images/x.png)"),
        ("[![a](../images/x.png)](../../LICENSE)", "![a](../images/x.png)"),
    ],
)
def test_links_follow(hooks: ModuleType, link: str, expected: str) -> None:
    known = {"guides/training.md", "guides/README.md", "images/x.png", "index.md", *hooks.pages_from_outside().values()}
    assert hooks.rewrite_links(link, "docs/guides/x.md", "guides/x.md", known) == expected


def test_a_folder_is_ordered_by_its_index(hooks: ModuleType) -> None:
    class Source:
        content_string = "# Guides\n\n[b](b.md) [a](a.md)\n"

    pages = dict.fromkeys(("guides/a.md", "guides/new.md", "guides/b.md", "guides/README.md", "faq.md"), Source())
    expanded = hooks._expand(["faq.md", {"Guides": "guides/*"}], pages)
    assert expanded == ["faq.md", {"Guides": ["guides/README.md", "guides/b.md", "guides/a.md", "guides/new.md"]}]


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    """The site on a server of this machine."""

    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(site)))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_finds_and_switches_and_asks_nothing_outside(address: str) -> None:
    sync_playwright: Callable[..., object] = pytest.importorskip("playwright.sync_api").sync_playwright
    asked = list[str]()
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
        page.set_default_timeout(90_000)  # A busy machine builds the search slowly.
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{address}/index.html", wait_until="networkidle")
        scheme = page.evaluate("document.body.dataset.mdColorScheme")
        for _ in range(2):
            page.locator("label.md-header__button[for^='__palette']:visible").click()
        assert {scheme, page.evaluate("document.body.dataset.mdColorScheme")} == {"default", "slate"}
        # The page looks for what was typed when a key comes up.
        page.locator("input.md-search__input").press_sequentially("modulation scalar")
        page.locator(".md-search-result__link").first.wait_for()
        page.set_viewport_size({"width": 390, "height": 844})
        for name in ("index.html", "models/segmentation.html", "reference/model.html"):
            page.goto(f"{address}/{name}", wait_until="networkidle")
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, f"{name} scrolls sideways"
        browser.close()
    outside = [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    assert not outside
