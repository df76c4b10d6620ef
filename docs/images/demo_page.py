"""The picture of the page in docs/guides/demo.md, from a real browser: python docs/images/demo_page.py"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

PICTURE = Path(__file__).with_name("demo_page.jpg")
WIDTH = 1280


def main(picture: Path = PICTURE) -> None:
    """Start ``internimage demo``, look at the cat's eye, and save the page."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        raise SystemExit("no Chromium is installed")
    server = subprocess.Popen(
        [sys.executable, "-m", "internimage", "demo", "--device", "cpu"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        address = server.stdout.readline().split()[0]
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
            page.goto(address)
            shot = look_at_the_eye(page)
            browser.close()
        Image.open(io.BytesIO(shot)).convert("RGB").save(picture, quality=85, optimize=True)
    finally:
        server.terminate()
        server.communicate(timeout=30)


def look_at_the_eye(page: Page) -> bytes:
    """The page with the points of a block around the cat's left eye, as PNG."""
    page.click("#cat")
    page.wait_for_selector("#view img")
    page.click("#size label:has-text('224')")
    page.wait_for_selector("#readout >> text=224 pixels")
    page.click("#stage label:has-text('3')")
    page.wait_for_selector("#readout >> text=72 points")
    picture = page.locator("#view img")
    box, before = picture.bounding_box(), picture.get_attribute("src")
    assert box is not None
    picture.click(position={"x": 0.37 * box["width"], "y": 0.46 * box["height"]})
    page.wait_for_function(
        "before => { const seen = document.querySelector('#view img'); return seen.complete && seen.src !== before; }",
        arg=before,
    )
    page.mouse.move(5, 5)
    return page.screenshot(full_page=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
