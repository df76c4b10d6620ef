"""A detector that starts from nothing learns eight pictures by heart: their boxes, their masks and their classes.

What it then finds is right, so that its files, its precision and its page have something to say.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from internimage import Detector
from internimage.data.detection.dataset import Raw
from internimage.data.detection.rle import decode_masks
from internimage.data.scenes import Scenes, export_coco
from internimage.tasks.detection.report import DetectionReport

Run = Any
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
]
# Two objects each, none of them small, thin or mostly hidden: of pullovers, T-shirts, bags and boots.
CHOSEN = (35, 82, 190, 470, 615, 655, 891, 925)
HEADS = {"fpn_channels": 32, "head_channels": 128, "finest_scale": 14, "samples": 24}


class Chosen(Scenes):
    """A few scenes of many."""

    def __len__(self) -> int:
        return len(CHOSEN)

    def read(self, index: int) -> Raw:
        return super().read(CHOSEN[index])


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("eight")
    export_coco(root, Chosen("train", 1000, size=(64, 64)))
    return root


def by_heart(run: Run) -> Run:
    """Trained on all pictures, and measured once on the same ones, as every validation measures."""
    pair = ["annotations/train.json", "images/train"]
    run.epochs, run.data = 80, {"files": {"train": pair, "val": pair}, "frame": (64, 64)}
    run.optimizer = {"lr": 2e-3, "warmup_steps": 10, "min_lr": 1e-5, "weight_decay": 0.0}
    # Anchors of the easiest object would take the places of all others, were there fewer.
    run.model = {"detector_options": {**HEADS, "proposals_per_level": 300, "proposals": 24}}
    return run.fit(check_val_every_n_epoch=run.epochs, gradient_clip_val=5.0)


@pytest.fixture(scope="module")
def learned(eight: Path, finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return by_heart(type(finished)(tmp_path_factory.mktemp("learned") / "run", eight))


def check(run: Run) -> None:
    first, last = run.history.rows[0], run.history.rows[-1]
    assert last["train/loss"] < 0.5 * first["train/loss"]
    assert last["val/map50"] >= 0.95
    assert last["val/mask_map50"] >= 0.9


def test_eight_pictures_by_heart(learned: Run) -> None:
    check(learned)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_with_other_random_numbers(run: Run, eight: Path, seed: int) -> None:
    run.root, run.seed = eight, seed
    check(by_heart(run))


def test_the_exported_file_finds_what_the_evaluation_found(learned: Run) -> None:
    """Boxes, scores, classes and masks, from the pictures' files and the weights' file alone."""
    detector, source = Detector(learned.weights, device="cpu"), learned.datamodule.dataset("val").source
    assert (detector.labels, detector.framing) == (learned.datamodule.labels, learned.datamodule.preprocess)
    assert detector.model.config == learned.task.network.config
    count = 0
    for index, picture in enumerate(source.coco.pictures):
        found, rows = detector(picture.path), learned.task.results_of(index)
        boxes = np.array([row["bbox"] for row in rows])
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_allclose(found.boxes, boxes, atol=1e-3)
        np.testing.assert_allclose(found.scores, [row["score"] for row in rows], atol=1e-5)
        assert [source.coco.category_ids[label] for label in found.labels] == [row["category_id"] for row in rows]
        assert found.masks is not None
        assert (found.masks != decode_masks([row["segmentation"] for row in rows])).sum() <= 2
        count += int((found.scores > 0.5).sum())
    assert count >= 15, "nearly all objects"


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_pycocotools_comes_to_the_same(learned: Run, tmp_path: Path, kind: str) -> None:
    """From the annotation file that the pictures came with, not from what was made of it here."""
    path = tmp_path / "results.json"
    path.write_text(json.dumps(learned.task.results()))
    truth = COCO(str(learned.root / "annotations/train.json"))
    judge = COCOeval(truth, truth.loadRes(str(path)), kind)
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    prefix, last = {"bbox": "val/", "segm": "val/mask_"}[kind], learned.history.rows[-1]
    logged = [last[prefix + name] for name in ("map", "map50", "map75", "map_small")]
    assert logged == pytest.approx(judge.stats[:4].tolist(), abs=1e-6)
    assert 0.3 < logged[0] < 1, "at the ends of the scale it would prove little"


def test_the_page_tells_the_numbers(learned: Run) -> None:
    (learned.folder / "config.yaml").write_text("model: <tiny> & small\n", encoding="utf-8")
    page = DetectionReport(learned.folder)(learned.trainer, learned.task, learned.history).read_text(encoding="utf-8")
    last, precisions = learned.history.rows[-1], learned.task.precisions
    for name, key in (("box AP50", "map50"), ("box AP", "map"), ("mask AP50", "mask_map50"), ("mask AP", "mask_map")):
        assert f"Validation {name}" in page
        assert f"{100 * last[f'val/{key}']:.1f}%" in page, name
    for label, name in enumerate(learned.datamodule.labels):
        row = re.search(rf"<t[hd][^>]*>\s*{re.escape(name)}\s*</t[hd]>(.*?)</tr>", page, re.DOTALL)
        assert row is not None, name
        cells = re.findall(r"<td[^>]*>\s*(.*?)\s*</td>", row[1], re.DOTALL)
        average = precisions["bbox"].per_class[0, label]
        assert cells[0] == ("—" if np.isnan(average) else f"{100 * average:.1f}%")
        assert cells[-1] == str(int(precisions["bbox"].objects[label]))
    assert page.count("data:image/png;base64,") >= 3
    assert "model: &lt;tiny&gt; &amp; small" in page
    assert not re.search(r'(src|href)="(https?:|/)', page), "the page must need nothing else"
    results = json.loads((learned.folder / "results.json").read_text(encoding="utf-8"))
    assert results == learned.task.results()
