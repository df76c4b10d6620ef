"""What the server remembers is bounded: visitors, questions that wait, sizes."""

from __future__ import annotations

import io
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from internimage.cli.demo.exploring import Choice, Visit
from internimage.cli.demo.limits import Limits
from internimage.cli.demo.uploads import read_upload
from internimage.data import ImageReadError
from internimage.inference.inspection import Inspector
from support.demo import Server, Visitor, running

FORGOTTEN = "no longer remembered"


def click(visitor: Visitor) -> str:
    """What the page says of the points after a click at (30, 40), for stage 1."""
    status, output = visitor.ask("view", "select", None, 1, 1, 0, 1, event_data={"index": [30, 40], "value": None})
    assert status == 200
    return next(each for each in output if isinstance(each, str) and each.startswith("<p>"))


def test_the_visitor_seen_longest_ago_is_forgotten_first(server: Server) -> None:
    visitors = [Visitor(server, f"visitor{number}") for number in range(Limits().sessions + 1)]
    for visitor in visitors[:-1]:
        assert visitor.ask("cat", "click")[0] == 200
    assert "18 points" in click(visitors[0])
    assert visitors[-1].ask("cat", "click")[0] == 200
    assert FORGOTTEN in click(visitors[1])
    assert "18 points" in click(visitors[0])


def test_a_visitor_sees_nothing_of_another(server: Server) -> None:
    assert Visitor(server, "one").ask("cat", "click")[0] == 200
    assert FORGOTTEN in click(Visitor(server, "two"))


def test_the_queue_has_an_end(server: Server) -> None:
    visitor = Visitor(server, "impatient")
    statuses = [visitor.put(1, []) for _ in range(5 * Limits().waiting)]
    assert statuses[0] == 200
    assert 503 in statuses
    assert Visitor(server, "patient").ask("cat", "click")[0] in (200, 503)


@pytest.mark.slow
def test_pictures_are_forgotten_and_files_removed(tmp_path: Path) -> None:
    with running(tmp_path, "--keep_minutes", 0.1) as server:
        visitor, before = Visitor(server, "brief"), set(server.files.rglob("*.*"))
        assert visitor.ask("cat", "click")[0] == 200
        assert "18 points" in click(visitor)
        assert set(server.files.rglob("*.*")) > before
        time.sleep(14)
        assert FORGOTTEN in click(visitor)
        assert set(server.files.rglob("*.*")) == before


@pytest.fixture(scope="module")
def visit() -> Visit:
    """A picture of 300 x 200 pixels, of which the shipped network sees the middle square at 32 x 32."""
    pixels = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    return Visit.begin(Inspector(device="cpu"), Image.fromarray(pixels), None, Limits().trace_bytes)


def test_clicks_are_places_of_the_networks_input(visit: Visit) -> None:
    assert visit.view.size == (900, 900)
    assert visit.xy == (15.5, 15.5)
    # 900 pixels show 32: the middle of the first lies at 14.1.
    assert visit.at((0, 0)).xy == (0, 0)
    assert visit.at((899, 899)).xy == (31, 31)
    np.testing.assert_allclose(visit.at((450, 225)).xy, ((450.5 / 900) * 32 - 0.5, (225.5 / 900) * 32 - 0.5))
    assert visit.at((10**9, -(10**9))).xy == (31, 0)


def test_what_is_drawn_is_what_is_said(visit: Visit) -> None:
    first = visit.first_choice()
    assert visit.trace.points(visit.xy, first.stage, first.block).seen() > 0.9
    _, words = visit.draw(Choice(3, 3))
    points = visit.trace.points(visit.xy, 3, 3)
    distances = np.linalg.norm(points.positions_xy - np.array(points.query_xy), axis=1)
    assert words.startswith("72 points for place (16, 16) of the network's 32 x 32 pixels. ")
    assert f"the farthest point {distances.max():.1f} pixels away" in words
    assert "9 points for" in visit.draw(Choice(3, 3, group=8))[1]
    assert " points through 2 blocks for" in visit.draw(Choice(3, 3, depth=2))[1]
    assert (visit.blocks_of(3), visit.groups_of(3), visit.blocks_before(Choice(3, 2))) == (3, 8, 4)
    # From stage 4, all points lie outside of 32 pixels: there is nothing to follow.
    assert "Nothing to follow: all points" in visit.draw(Choice(4, 1, depth=2))[1]
    with pytest.raises(ValueError, match="there is no group 9"):
        visit.draw(Choice(3, 3, group=9))


def test_half_of_what_counts(visit: Visit) -> None:
    """Four points at 1, 2, 3 and 4 pixels; the second takes the sum past a half."""
    block = visit.trace.find(1)
    ahead = np.zeros_like(block.positions_xy) + block.centers_xy[:, :, None, None]
    ahead[..., :4, 0] += np.arange(1, 5, dtype=np.float32)
    weights = np.zeros_like(block.modulations)
    weights[..., :4] = (0.4, 0.3, 0.2, 0.1)
    trace = replace(visit.trace, blocks=(replace(block, positions_xy=ahead, modulations=weights),))
    words = replace(visit, trace=trace, xy=(8.0, 8.0)).draw(Choice(1, 1, group=1))[1]
    assert "Half of what counts lies within 2.0 pixels" in words
    assert "the farthest point 4.0 pixels away." in words


def test_a_trace_too_large_to_remember() -> None:
    with pytest.raises(ValueError, match="too large for the network to be watched at"):
        Visit.begin(Inspector(device="cpu"), Image.new("RGB", (64, 64)), None, 100_000)


def test_a_long_picture_is_not_made_longer() -> None:
    """At 224 pixels across, a strip of 1600 x 1 pixels would be an input of 80 million."""
    inspector, strip = Inspector(device="cpu"), Image.new("RGB", (1600, 1))
    assert Visit.begin(inspector, strip, None, 10**9).trace.size == (32, 32)
    with pytest.raises(ValueError, match="more than 8 times as long as wide"):
        Visit.begin(inspector, strip, 224, 10**9)
    assert Visit.begin(inspector, Image.new("RGB", (160, 20)), 32, 10**9).trace.size == (32, 256)


def test_pixels_are_counted_before_they_are_decoded() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (300, 200)).save(stream, "PNG")
    # All but the header is gone: whoever decodes it notices.
    header = stream.getvalue()[:60]
    with pytest.raises(ImageReadError, match="it is 300 x 200, more than the limit of 50,000 pixels"):
        read_upload(header, Limits(pixels=50_000))
    upload = read_upload(stream.getvalue(), Limits(side=150))
    assert (upload.picture.size, upload.notes) == ((150, 100), "Made smaller, from 300 x 200 to 150 x 100 pixels.")
