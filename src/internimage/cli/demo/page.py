"""The page: what is where on it, and what happens when a visitor does something."""

from __future__ import annotations

import html
import logging
from typing import Any

import gradio as gr
from PIL import Image

from internimage.cli.demo.exploring import Choice, Visit
from internimage.cli.demo.limits import Limits
from internimage.cli.demo.network import Network
from internimage.cli.demo.uploads import read_upload
from internimage.data import sample_photo
from internimage.inference.inspection import Inspector
from internimage.model.sampling import find_backbone

log = logging.getLogger(__name__)

_TITLE = """<h1>See where InternImage looks</h1>
<p>DCNv3, its operator, is a 3 &times; 3 convolution whose nine points move: for every pixel and every group of
channels the network predicts from the picture where each point goes, and how much it counts there.</p>"""
_WHERE = """<h2>Where does it look?</h2>
<p>Choose a block and click on the picture: the points are where this block looks to compute that place. The picture is
the part of yours that the network gets to see.</p>"""
_SCALE = """<div class="scale"><span>counts little</span><i></i><span>much</span></div>"""
_FORGOTTEN = "The picture is no longer remembered; drop it again."
_FAILED = "The network could not look at this picture; the server's log says why."


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
        keep = self._limits.session_s
        with gr.Blocks(title="InternImage", analytics_enabled=False, delete_cache=(60, keep)) as blocks:
            # The server's memory of a visitor: the picture until it is traced, then the trace.
            self._picture, self._visit = gr.State(time_to_live=keep), gr.State(time_to_live=keep)
            gr.HTML(f'{_TITLE}<p class="about">{html.escape(self._network.about)}</p>', elem_classes="title")
            with gr.Row():
                with gr.Column(scale=4, min_width=300):
                    self._lay_out_question()
                with gr.Column(scale=5, min_width=300, visible=False) as self._answered:
                    self._lay_out_answer()
            with gr.Column(visible=False, elem_id="where") as self._where:
                self._lay_out_places()
            self._connect()
        blocks.queue(max_size=self._limits.waiting, default_concurrency_limit=1, api_open=False)
        return blocks

    def _lay_out_question(self) -> None:
        self._drop = gr.File(label="Your picture", type="binary", height=170, elem_id="drop")
        self._cat = gr.Button("or begin with this cat", elem_id="cat")
        megapixels = self._limits.pixels / 1e6
        gr.HTML(
            f"Up to {self._limits.upload_mb:g} MB and {megapixels:g} million pixels. It stays on the machine that "
            f"serves this page, for at most {self._limits.session_s // 60} minutes.",
            elem_classes="soft",
        )
        self._problem = gr.HTML(visible=False, elem_id="problem")

    def _lay_out_answer(self) -> None:
        self._verdict = gr.HTML(elem_id="verdict")
        self._shares = gr.Label(visible=False, label="The most probable classes", show_heading=False, elem_id="shares")
        self._found = gr.Image(
            visible=False,
            interactive=False,
            label="What it finds",
            format="png",
            buttons=["fullscreen"],
            elem_id="found",
        )

    def _lay_out_places(self) -> None:
        gr.HTML(_WHERE, elem_classes="section")
        with gr.Row():
            with gr.Column(scale=5, min_width=300):
                self._view = gr.Image(
                    interactive=False,
                    show_label=False,
                    format="png",
                    buttons=[],
                    elem_id="view",
                    alt_text="The picture with the points where the chosen block looks; click to choose a place",
                )
            with gr.Column(scale=4, min_width=300):
                # All numbers that any block may have: a visit narrows them, and when it is forgotten they are checked.
                depths, groups = self._inspector.num_blocks, max(find_backbone(self._inspector.model).config.groups)
                self._stage = gr.Radio(_numbers(len(depths)), label="Stage", elem_id="stage")
                with gr.Row():
                    short: dict[str, Any] = {"filterable": False, "min_width": 100}
                    self._block = gr.Dropdown(_numbers(max(depths)), label="Block", elem_id="block", **short)
                    self._group = gr.Dropdown([0, *_numbers(groups)], label="Group", elem_id="group", **short)
                back = "Followed back through this many blocks"
                self._depth = gr.Slider(1, max(2, sum(depths)), 1, step=1, label=back, elem_id="depth")
                gr.HTML(_SCALE, elem_classes="soft")
                self._readout = gr.HTML(elem_classes="readout", elem_id="readout")

    def _connect(self) -> None:
        answer = [self._answered, self._verdict, self._shares, self._found]
        seen = [self._drop, self._problem, *answer, self._where, self._picture]
        controls = [self._stage, self._block, self._group, self._depth]
        drawn: list[Any] = [self._view, self._readout]
        begun = [*drawn, *controls, self._where, self._problem, self._picture, self._visit]
        asked = [self._visit, *controls]
        # One picture is in the network at a time; whoever comes later waits, up to a bound.
        turn: dict[str, Any] = {"concurrency_id": "network", "concurrency_limit": 1}
        asking: dict[str, Any] = {"show_progress_on": [self._drop], **turn}
        dropped = self._drop.upload(self._see, self._drop, seen, **asking)
        for event in (dropped, self._cat.click(self._see_cat, None, seen, **asking)):
            event.then(self._begin, self._picture, begun, show_progress_on=[self._verdict], **turn)
        quick: dict[str, Any] = {"trigger_mode": "always_last", "show_progress": "hidden"}
        self._view.select(self._click, asked, [*drawn, self._visit], **quick)
        self._stage.input(self._choose_stage, asked, [*drawn, *controls[1:]], **quick)
        self._block.input(self._choose_block, asked, [*drawn, self._depth], **quick)
        for control in (self._group.input, self._depth.release):
            control(self._draw, asked, drawn, **quick)

    def _see(self, data: bytes | None) -> list[Any]:
        return self._answer(data) if data is not None else [gr.skip()] * 8

    def _see_cat(self) -> list[Any]:
        return self._answer(sample_photo().read_bytes())

    def _answer(self, data: bytes) -> list[Any]:
        """What is in a picture, for the page: the answer, or why there is none."""
        hidden = gr.update(visible=False)
        try:
            upload = read_upload(data, self._limits)
            seen = self._network.look(upload.picture)
        except Exception as error:
            return [None, _problem(error), hidden, gr.skip(), gr.skip(), gr.skip(), hidden, None]
        notes = f'<p class="soft">{html.escape(upload.notes)}</p>' if upload.notes else ""
        verdict = f'<p class="verdict">{html.escape(seen.words)}</p>{notes}'
        return [
            None,
            hidden,
            gr.update(visible=True),
            verdict,
            gr.update(value=None if seen.shares is None else dict(seen.shares), visible=seen.shares is not None),
            gr.update(value=seen.picture, visible=seen.picture is not None),
            hidden,
            upload.picture,
        ]

    def _begin(self, picture: Image.Image | None) -> list[Any]:
        """Trace the picture, and show where one block looks from its middle."""
        if picture is None:
            return [gr.skip()] * 8 + [None, None]
        try:
            visit = Visit.begin(self._inspector, picture, self._limits.trace_bytes)
        except Exception as error:
            return [gr.skip()] * 7 + [_problem(error), None, None]
        choice = visit.first_choice()
        return [
            *self._draw(visit, choice.stage, choice.block, 0, 1),
            choice.stage,
            *_controls(visit, choice),
            gr.update(visible=True),
            gr.update(visible=False),
            None,
            visit,
        ]

    def _click(
        self, visit: Visit | None, stage: int, block: int, group: int, depth: int, place: gr.SelectData
    ) -> list[Any]:
        visit = visit and visit.at((place.index[0], place.index[1]))
        return [*self._draw(visit, stage, block, group, depth), visit]

    def _choose_stage(self, visit: Visit | None, stage: int, block: int, group: int, depth: int) -> list[Any]:
        if visit is None:
            return [*self._draw(None, stage, block, group, depth), gr.skip(), gr.skip(), gr.skip()]
        choice = Choice(stage, visit.blocks_of(stage))
        return [*self._draw(visit, stage, choice.block, 0, 1), *_controls(visit, choice)]

    def _choose_block(self, visit: Visit | None, stage: int, block: int, group: int, depth: int) -> list[Any]:
        if visit is None:
            return [*self._draw(None, stage, block, group, depth), gr.skip()]
        most = visit.blocks_before(Choice(stage, block))
        depth = min(depth, most)
        return [*self._draw(visit, stage, block, group, depth), _slider(depth, most)]

    def _draw(self, visit: Visit | None, stage: int, block: int, group: int, depth: int) -> list[Any]:
        """The picture with its points, and the sentence below; group 0 stands for all."""
        if visit is None:
            return [gr.skip(), f"<p>{_FORGOTTEN}</p>"]
        picture, words = visit.draw(Choice(stage, block, group or None, depth))
        return [picture, f"<p>{html.escape(words)}</p>"]


def _controls(visit: Visit, choice: Choice) -> list[Any]:
    """Block, group and depth, for the choice of a stage."""
    blocks, groups = visit.blocks_of(choice.stage), visit.groups_of(choice.stage)
    return [
        gr.update(choices=[(f"{number} of {blocks}", number) for number in _numbers(blocks)], value=choice.block),
        gr.update(choices=[(f"all {groups}", 0), *((str(number), number) for number in _numbers(groups))], value=0),
        _slider(1, visit.blocks_before(choice)),
    ]


def _numbers(count: int) -> list[int]:
    return list(range(1, count + 1))


def _slider(value: int, most: int) -> dict[str, Any]:
    return gr.update(value=value, maximum=max(most, 2), interactive=most > 1)


def _problem(error: Exception) -> dict[str, Any]:
    """Why there is no answer: what our own errors say, or that the log knows."""
    if isinstance(error, ValueError):
        words = str(error)
    else:
        log.exception("the network failed", exc_info=error)
        words = _FAILED
    said = html.escape(words[:1].upper() + words[1:])
    return gr.update(value=f'<div class="problem" role="alert">{said}.</div>', visible=True)
