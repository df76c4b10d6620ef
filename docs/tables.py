"""Pages made of the code's tables: cards of released weights, recipes, names of weights. ``python docs/tables.py``.

`design_tables.py` makes the tables of a page that is otherwise written by hand.

`tests/documentation/test_tables.py` says when the pages are older than the code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import fill

import design_tables
import torch

from internimage.cli.configs import shipped_configs
from internimage.model import InternImageConfig, create_model
from internimage.model.checkpoints import convert, detectors, segmenters
from internimage.model.checkpoints.official.arguments import FIELDS, FLASH_FIELDS
from internimage.model.weights import DETECTORS, SEGMENTERS, SHIPPED, WEIGHTS, Weights

DOCS = Path(__file__).resolve().parent
_MADE = "<!-- Made by `python docs/tables.py`: change the code's tables, not this page. -->"
_LICENCE = "## Licence and limits"
_RECIPE = re.compile(r"\b((?:classification|detection|segmentation)/configs/\S+?\.(?:py|yaml))")


def weight_cards() -> dict[str, str]:
    """Page -> text: one card for each family of released weights, and an index."""
    last = {row.data.split(", ")[-1] for row in SEGMENTERS.values()}
    shipped = [
        f"- [{name}](../../src/internimage/model/shipped/{name}.md): {row.data}, {row.image_size} pixels, "
        f"{row.top1:g}% of its test images; comes with the package"
        for name, row in SHIPPED.items()
    ]
    cards = [
        f"- [Classifiers](classification.md): {len(WEIGHTS)} files, ImageNet and iNaturalist",
        f"- [Detectors](detection.md): {len(DETECTORS)} files, boxes and masks, COCO and others",
        f"- [Segmenters](segmentation.md): {len(SEGMENTERS)} files, {len(last)} data sets",
    ]
    index = _page(
        "Model cards",
        "What each set of weights was trained on, what was published about it, its licence, and how to load it.",
        "\n".join([*cards, *shipped]),
        "`internimage models` prints all names.",
    )
    return {
        "models/README.md": index,
        "models/classification.md": _classifiers(),
        "models/detection.md": _detectors(),
        "models/segmentation.md": _segmenters(),
    }


def _classifiers() -> str:
    rows = [
        (f"`{row.name}`", f"{_parameters(row):,}", row.data, row.image_size, f"{row.num_classes:,}", row.top1 or "")
        for row in WEIGHTS.values()
    ]
    columns = ("name", "parameters", "trained on, in order", "pixels", "classes", "top-1, published")
    repositories = " and ".join(dict.fromkeys(f"`{row.repository}`" for row in WEIGHTS.values()))
    return _page(
        "Released classifiers",
        f"Source: {repositories} on the Hugging Face hub, by the authors of the papers (arXiv:2211.05778, for the "
        "networks called flash arXiv:2401.06197). Top-1 is in percent of the last set's validation images. For "
        "iNaturalist none is given: "
        "the published one needs a branch for date and place that this network does not have.",
        _table(columns, rows),
        "## Use",
        "The name is enough; the file is downloaded once. A size's first row is what `pretrained=True` takes.",
        "```bash\ninternimage predict photo.jpg --weights internimage_t.in1k_224\n"
        "internimage convert internimage_t.in1k_224 internimage_t.safetensors\n```",
        '```text\nclassifier = internimage.Classifier("internimage_t.in1k_224")\n'
        'backbone = internimage.create_model("internimage_l.in22k_384", pretrained=True, features_only=True)\n```',
        "## Files",
        _table(("name", "file"), [(f"`{row.name}`", f"`{row.file}`") for row in WEIGHTS.values()]),
        _LICENCE,
        _limits(
            "ImageNet's terms allow non-commercial research and education only; what terms the joint set of H and G "
            "has is not known here.",
            "`tests/model/test_golden.py`",
        ),
    )


def _detectors() -> str:
    rows = [
        (f"`{row.name}`", row.data, row.box_ap or "", row.mask_ap or "", f"`{row.file}`") for row in DETECTORS.values()
    ]
    return _page(
        "Released detectors",
        "Mask R-CNN (T, S, B) and Cascade Mask R-CNN (L, XL), boxes and instance masks of COCO's 80 classes; DINO, "
        "boxes, also on a composite of two backbones (cbinternimage). AP is in percent, at one size, on COCO val2017, "
        "LVIS v1 val, OpenImages' validation pictures or VOC's 2007 test (the last two at IoU 0.5). Recipes of the "
        "same names say what each began from. Those called flash have DCNv4, and with masks layer normalisation in "
        "their pyramid.",
        _table(("name", "trained on", "box AP, published", "mask AP, published", "file"), rows),
        "## Use",
        "```bash\ninternimage predict street.jpg --weights mask_rcnn_internimage_t_coco_1x --output found\n```",
        '```text\nfound = internimage.Detector("mask_rcnn_internimage_t_coco_1x")("street.jpg")\n```',
        "More: [the guide](../guides/detection.md).",
        _LICENCE,
        _limits("COCO has terms of its own.", "`tests/model/detection`"),
    )


def _segmenters() -> str:
    rows = [
        (f"`{row.name}`", row.data, row.miou or "", row.miou_multi_scale or "", f"`{row.file}`")
        for row in SEGMENTERS.values()
    ]
    return _page(
        "Released segmenters",
        "UPerNet, SegFormer's head and Mask2Former. Mean IoU is in percent on the last set's validation images, once "
        "as they are and once over several sizes, mirrored as well.",
        _table(("name", "trained on, in order", "mIoU, published", "multi-scale", "file"), rows),
        "## Use",
        "```bash\ninternimage predict street.jpg --weights upernet_internimage_t_ade20k_512 --output found\n```",
        '```text\nfound = internimage.Segmenter("upernet_internimage_t_ade20k_512")("street.jpg")\n```',
        "More: [the guide](../guides/segmentation.md).",
        _LICENCE,
        _limits("The sets have terms of their own.", "`tests/model/segmentation`, `tests/inference`"),
    )


def _limits(terms: str, tests: str) -> str:
    return (
        "The authors' model cards state the MIT licence for these files; for those called flash it is the licence of "
        f"the code that they were published with. {terms} Whoever uses the weights has to "
        "judge this; [NOTICE](../../NOTICE) says more. None of them was trained or measured again here: the figures "
        "are the authors'. What is tested is that networks of every published form compute what the released code "
        f"computes ({tests})."
    )


def recipes() -> str:
    """The released configurations, each with the recipe here that says it is its source."""
    rows: list[tuple[str, str]] = []
    for name, path in shipped_configs().items():
        head = " ".join(line.lstrip("# ") for line in path.read_text(encoding="utf-8").splitlines()[:8])
        if sources := [found for found in _RECIPE.findall(head) if not found.endswith("without_lr_decay")]:
            rows += [(f"`{source}`", f"`{name.rpartition('/')[2]}`") for source in sources]
    arguments = [(f"`{theirs}`", f"`{ours}`") for theirs, ours in (FIELDS | FLASH_FIELDS).items()]
    arguments += [
        ("`act_layer`", "`activation`, in small letters"),
        ("`use_clip_projector`", '`head="clip"`'),
        ("`level2_post_norm`, `level2_post_norm_block_ids`", "`level2_post_norm_blocks`"),
        ("`core_op`", "`core` and `normalize`: DCNv3, and DCNv4 of FlashInternImage"),
        ("`norm_layer`", "none: LN"),
    ]
    return _page(
        "Configurations and arguments",
        "The configurations of the released code (31c962d; with DCNv4 4b848f7) and the recipes that follow them, for "
        "`--config`.",
        _table(("released", "here"), sorted(rows)),
        "## Arguments of the network",
        "`InternImageConfig.from_official` reads the released constructor's arguments, `to_official` writes them.",
        _table(("released", "`InternImageConfig`"), arguments),
    )


def weight_names() -> str:
    """The tables by which files are converted."""
    return _page(
        "Names of weights",
        "The rows by which files are read and written (`model/checkpoints`). `{i}`, `{j}`, `{k}` are the numbers of a "
        "stage, a block and an extra norm, `{n}` is `weight`, `bias` or a running value, `*` is `.weight` or `.bias`.",
        "## Networks",
        "On Hugging Face the released names have the prefix `model.`, and `layer_scale1` for `gamma1`. In mmdetection "
        "and mmsegmentation they have the prefix `backbone.`.",
        _names(convert._TABLE, "classification"),
        "In networks with the head of H and G:",
        _names((convert._CLIP_NORM,), "classification"),
        "## Detectors",
        "Mask R-CNN's one box head has no number in mmdetection, and is 0 here.",
        _names(detectors._TABLE, "mmdetection"),
        "## Segmenters",
        "Mask2Former's self-attention has its three input projections in one tensor there, in three here.",
        _names(segmenters._TABLE, "mmsegmentation"),
    )


def pages() -> dict[str, str]:
    """Path below docs/ -> text of every page that is made here."""
    return {
        **weight_cards(),
        "migrate/recipes.md": recipes(),
        "migrate/weight_names.md": weight_names(),
        design_tables.PAGE: design_tables.design_space_page(),
    }


def _names(rows: Iterable[tuple[str, str]], theirs: str) -> str:
    return _table(("here", theirs), [(f"`{ours}`", f"`{official}`") for ours, official in rows])


def _parameters(row: Weights) -> int:
    with torch.device("meta"):
        model = create_model(InternImageConfig.from_variant(row.model, num_classes=row.num_classes))
    return sum(parameter.numel() for parameter in model.parameters())


def _page(title: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", _MADE, *map(_wrapped, parts)]) + "\n"


def _wrapped(part: str) -> str:
    """A paragraph in lines of the house's width; tables, lists and code as they are."""
    return part if part.startswith(("|", "- ", "#", "`" * 3)) else fill(part, 120, break_on_hyphens=False)


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def main() -> None:
    """Write the pages."""
    for name, text in pages().items():
        path = DOCS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
