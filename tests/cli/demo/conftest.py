"""A server of the page, and a real browser that may reach nothing else."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from internimage.data import sample_photo
from support.demo import Server, running

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="session")
def trap() -> Iterator[socket.socket]:
    """The proxy that servers are told to use: whoever connects wanted to leave this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


@pytest.fixture(scope="module")
def server(trap: socket.socket, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The page with the weights that ship, as it is without options; uploads of at most a megabyte.

    It ends with its tests: an idle server of gradio's takes 6% of a core.
    """
    address = "http://{}:{}".format(*trap.getsockname())
    with running(tmp_path_factory.mktemp("demo"), "--max_upload_mb", 1, proxy=address) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium without a window; tests skip where none is installed.

    Its event loop runs in this thread as long as it is open: other tests must be able to have one of their own.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as driver, ExitStack() as closing:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        closing.callback(browser.close)
        yield browser


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a page; afterwards, no request of it may have left this machine, and no script may have failed."""
    with ExitStack() as closing:
        requests: list[str] = []
        complaints: list[str] = []

        def open_it(url: str, **settings: Any) -> Any:
            context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
            closing.callback(context.close)
            page = context.new_page()
            page.on("request", lambda request: requests.append(request.url))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.set_default_timeout(60_000)
            page.goto(url)
            page.wait_for_selector("#cat")
            return page

        yield open_it
        outside = [url for url in requests if not url.startswith(("http://127.0.0.1:", "data:", "blob:"))]
        assert requests
        assert outside == []
        assert complaints == []


@pytest.fixture(scope="session")
def photo() -> Path:
    """The photograph that ships."""
    return sample_photo()
