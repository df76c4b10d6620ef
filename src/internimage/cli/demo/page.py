"""What happens on the page when a visitor does something."""

from __future__ import annotations

import html
import logging
from typing import Any

import gradio as gr
from PIL import Image

from internimage.cli.demo.exploring import Choice, Visit
from internimage.cli.demo.layout import lay_out, numbers
from internimage.cli.demo.limits import Limits
from internimage.cli.demo.network import Network
from internimage.cli.demo.uploads import read_upload
from internimage.data import sample_photo
from internimage.inference.inspection import Inspector
from internimage.model.sampling import find_backbone

log = logging.getLogger(__name__)

_FORGOTTEN = "The picture is no longer remembered; drop it again."
_FAILED = "the network could not look at this picture; the log of the server says why"

# Elements of the page, and what becomes of them.
Changes = dict[Any, Any]


class Page:
    """The page of one network.

    Args:
        network: says what is in a picture.
        inspector: says where the same network looks.
        limits: what a visitor may ask.
    """

    def __init__(self, network: Network, inspector: Inspector, limits: Limits) -> None:
        self._network, self._inspector, self._limits = network, inspector, limits

    def build(self) -> gr.Blocks:
        """Lay everything out and connect it."""
        keep, config = self._limits.session_s, find_backbone(self._inspector.model).config
        with gr.Blocks(title="InternImage", analytics_enabled=False, delete_cache=(min(60, keep), keep)) as blocks:
            # The server's memory of a visitor: the picture until it is traced, then the trace.
            self._picture, self._visit = gr.State(time_to_live=keep), gr.State(time_to_live=keep)
            self._on = lay_out(self._network.about, self._limits, self._network.sizes, config.depths, config.groups)
            self._connect()
        blocks.queue(max_size=self._limits.waiting, default_concurrency_limit=1, api_open=False)
        return blocks

    def _connect(self) -> None:
        on = self._on
        seen = [on.drop, on.problem, on.answer, on.verdict, on.shares, on.found, on.where, self._picture]
        controls = [on.stage, on.block, on.group, on.depth]
        drawn = [on.view, on.readout, *controls]
        begun = [*drawn, on.size, on.where, on.problem, self._picture, self._visit]
        # One picture is in the network at a time; whoever comes later waits, up to a bound.
        turn: dict[str, Any] = {"concurrency_id": "network", "concurrency_limit": 1}
        asking: dict[str, Any] = {"show_progress_on": [on.drop], **turn}
        dropped = on.drop.upload(self._see, on.drop, seen, **asking)
        for event in (dropped, on.cat.click(self._see_cat, None, seen, **asking)):
            event.then(self._begin, self._picture, begun, show_progress_on=[on.verdict], **turn)
        on.size.input(self._choose_size, [self._visit, on.size], begun, show_progress_on=[on.view], **turn)
        # One after the other: a drawing that was asked for earlier never replaces a later one.
        quick: dict[str, Any] = {
            "concurrency_id": "drawing",
            "concurrency_limit": 1,
            "trigger_mode": "always_last",
            "show_progress": "hidden",
        }
        asked = [self._visit, *controls]
        on.view.select(self._click, asked, [*drawn, self._visit], **quick)
        on.stage.input(self._choose_stage, [self._visit, on.stage], drawn, **quick)
        for event in (on.block.input, on.group.input, on.depth.release):
            event(self._draw, asked, drawn, **quick)

    def _see(self, data: bytes | None) -> Changes:
        return {} if data is None else self._answer(data)

    def _see_cat(self) -> Changes:
        return self._answer(sample_photo().read_bytes())

    def _answer(self, data: bytes) -> Changes:
        """What is in a picture, or why there is no answer."""
        on, hidden = self._on, gr.update(visible=False)
        empty: Changes = {on.drop: None, on.where: hidden}
        try:
            upload = read_upload(data, self._limits)
            seen = self._network.look(upload.picture)
        except Exception as error:
            return {**empty, on.problem: _problem(error), on.answer: hidden, self._picture: None}
        notes = f'<p class="soft">{html.escape(upload.notes)}</p>' if upload.notes else ""
        shares = None if seen.shares is None else dict(seen.shares)
        return {
            **empty,
            on.problem: hidden,
            on.answer: gr.update(visible=True),
            on.verdict: f'<p class="verdict">{html.escape(seen.words)}</p>{notes}',
            on.shares: gr.update(value=shares, visible=shares is not None),
            on.found: gr.update(value=seen.picture, visible=seen.picture is not None),
            self._picture: upload.picture,
        }

    def _begin(self, picture: Image.Image | None) -> Changes:
        """Trace the picture that was just answered for."""
        if picture is None:
            return {self._visit: None}
        try:
            return {**self._show(picture, None), self._on.where: gr.update(visible=True), self._picture: None}
        except Exception as error:
            return {self._on.problem: _problem(error), self._picture: None, self._visit: None}

    def _choose_size(self, visit: Visit | None, size: int) -> Changes:
        if visit is None:
            return self._forgotten()
        try:
            return self._show(visit.picture, size or None)
        except Exception as error:
            return {self._on.problem: _problem(error), self._on.size: visit.size or 0}

    def _show(self, picture: Image.Image, size: int | None) -> Changes:
        """Trace a picture, and show where one block looks from its middle."""
        visit = Visit.begin(self._inspector, picture, size, self._limits.trace_bytes)
        choice = visit.first_choice()
        on = self._on
        return {
            **self._drawn(visit, choice),
            **self._narrowed(visit, choice),
            self._visit: visit,
            on.stage: choice.stage,
            on.size: size or 0,
            on.problem: gr.update(visible=False),
        }

    def _click(
        self, visit: Visit | None, stage: int, block: int, group: int, depth: int, place: gr.SelectData
    ) -> Changes:
        visit = visit and visit.at((place.index[0], place.index[1]))
        return {**self._draw(visit, stage, block, group, depth), self._visit: visit}

    def _choose_stage(self, visit: Visit | None, stage: int) -> Changes:
        """Its last block, with all groups."""
        if visit is None:
            return self._forgotten()
        choice = Choice(stage, visit.blocks_of(stage))
        return {**self._drawn(visit, choice), **self._narrowed(visit, choice)}

    def _draw(self, visit: Visit | None, stage: int, block: int, group: int, depth: int) -> Changes:
        """What the controls say; group 0 stands for all."""
        if visit is None:
            return self._forgotten()
        most = visit.blocks_before(Choice(stage, block))
        choice = Choice(stage, block, group or None, min(depth, most))
        return {**self._drawn(visit, choice), self._on.depth: _slider(choice.depth, most)}

    def _drawn(self, visit: Visit, choice: Choice) -> Changes:
        """The picture with its points, and the sentence below."""
        picture, words = visit.draw(choice)
        return {self._on.view: picture, self._on.readout: f"<p>{html.escape(words)}</p>"}

    def _narrowed(self, visit: Visit, choice: Choice) -> Changes:
        """Block, group and depth as far as a stage has them."""
        on, blocks, groups = self._on, visit.blocks_of(choice.stage), visit.groups_of(choice.stage)
        named = [(f"{number} of {blocks}", number) for number in numbers(blocks)]
        grouped = [(f"all {groups}", 0), *((str(number), number) for number in numbers(groups))]
        return {
            on.block: gr.update(choices=named, value=choice.block),
            on.group: gr.update(choices=grouped, value=0),
            on.depth: _slider(1, visit.blocks_before(choice)),
        }

    def _forgotten(self) -> Changes:
        return {self._on.readout: f"<p>{_FORGOTTEN}</p>"}


def _slider(value: int, most: int) -> dict[str, Any]:
    return gr.update(value=value, maximum=max(most, 2), interactive=most > 1)


def _problem(error: Exception) -> dict[str, Any]:
    """Why there is no answer: what our own errors say, or that the log knows."""
    words = str(error)
    if not isinstance(error, ValueError):
        log.error("the network failed", exc_info=error)
        words = _FAILED
    said = html.escape(words[:1].upper() + words[1:])
    return gr.update(value=f'<div class="problem" role="alert">{said}.</div>', visible=True)
