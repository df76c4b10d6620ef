"""What is where on the page."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from internimage.cli.demo.limits import Limits

_TITLE = """<h1>See where InternImage looks</h1>
<p>DCNv3, its operator, is a 3 &times; 3 convolution whose nine points move: for every pixel and every group of
channels the network predicts from the picture where each point goes, and how much it counts there.</p>"""
_WHERE = """<h2>Where does it look?</h2>
<p>Choose a block and click on the picture: the points are where this block looks to compute that place. The picture is
the part of yours that the network gets to see.</p>"""
_SCALE = """<div class="scale"><span>counts little</span><i></i><span>much</span></div>"""


@dataclass(frozen=True)
class Elements:
    """Everything on the page that changes or is asked."""

    drop: gr.File
    cat: gr.Button
    problem: gr.HTML
    answer: gr.Column
    verdict: gr.HTML
    shares: gr.Label
    found: gr.Image
    where: gr.Column
    view: gr.Image
    size: gr.Radio
    stage: gr.Radio
    block: gr.Dropdown
    group: gr.Dropdown
    depth: gr.Slider
    readout: gr.HTML


def lay_out(
    about: str, limits: Limits, sizes: Mapping[str, int], depths: tuple[int, ...], groups: tuple[int, ...]
) -> Elements:
    """Put everything on the page that is being built.

    Args:
        about: what the network knows, in words.
        limits: what a visitor may ask, which is told.
        sizes: how the network may be shown a picture.
        depths: blocks of each stage.
        groups: of the blocks of each stage.
    """
    gr.HTML(f'{_TITLE}<p class="about">{html.escape(about)}</p>', elem_classes="title")
    with gr.Row():
        with gr.Column(scale=4, min_width=300):
            question = _lay_out_question(limits)
        with gr.Column(scale=5, min_width=300, visible=False) as answer:
            answers = _lay_out_answer()
    with gr.Column(visible=False, elem_id="where") as where:
        gr.HTML(_WHERE, elem_classes="section")
        with gr.Row():
            with gr.Column(scale=5, min_width=300):
                says = "The picture with the points where the chosen block looks; click to choose a place"
                view = _picture(show_label=False, buttons=[], elem_id="view", alt_text=says)
            with gr.Column(scale=4, min_width=300):
                controls = _lay_out_controls(sizes, depths, groups)
    return Elements(**question, answer=answer, **answers, where=where, view=view, **controls)


def _lay_out_question(limits: Limits) -> dict[str, Any]:
    drop = gr.File(label="Your picture", type="binary", height=170, elem_id="drop")
    problem = gr.HTML(visible=False, elem_id="problem")
    cat = gr.Button("or begin with this cat", elem_id="cat")
    gr.HTML(
        f"Up to {limits.upload_mb:g} MB and {limits.pixels / 1e6:g} million pixels. It stays on the machine that "
        f"serves this page, until {limits.session_s / 60:g} minutes after you last used it.",
        elem_classes="soft",
    )
    return {"drop": drop, "cat": cat, "problem": problem}


def _lay_out_answer() -> dict[str, Any]:
    return {
        "verdict": gr.HTML(elem_id="verdict"),
        "shares": gr.Label(visible=False, label="The most probable classes", show_heading=False, elem_id="shares"),
        "found": _picture(visible=False, label="What it finds", buttons=["fullscreen"], elem_id="found"),
    }


def _lay_out_controls(sizes: Mapping[str, int], depths: tuple[int, ...], groups: tuple[int, ...]) -> dict[str, Any]:
    """All numbers that any block may have: a visit narrows them, and when it is forgotten these are checked."""
    size = gr.Radio(list(sizes.items()), value=0, label="The network sees", visible=len(sizes) > 1, elem_id="size")
    stage = gr.Radio(numbers(len(depths)), label="Stage", elem_id="stage")
    with gr.Row():
        short: dict[str, Any] = {"filterable": False, "min_width": 100}
        block = gr.Dropdown(numbers(max(depths)), label="Block", elem_id="block", **short)
        group = gr.Dropdown([0, *numbers(max(groups))], label="Group", elem_id="group", **short)
    back = "Followed back through this many blocks"
    depth = gr.Slider(1, max(2, sum(depths)), 1, step=1, label=back, elem_id="depth")
    gr.HTML(_SCALE, elem_classes="soft")
    readout = gr.HTML(elem_classes="readout", elem_id="readout")
    return {"size": size, "stage": stage, "block": block, "group": group, "depth": depth, "readout": readout}


def _picture(**settings: Any) -> gr.Image:
    return gr.Image(interactive=False, format="png", **settings)


def numbers(count: int) -> list[int]:
    """From 1 on, as people count.

    >>> numbers(3)
    [1, 2, 3]
    """
    return list(range(1, count + 1))
