"""Real sets of boxes and of masks: BCCD and the 2018 Data Science Bowl."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from internimage.data.detection.coco import deep_check, find_coco, read_coco
from internimage.data.detection.rle import encode_masks, instance_masks, segmentation_box

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
# pycocotools was built before NumPy 2.
pytestmark = [
    pytest.mark.shared,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


@pytest.fixture(scope="module", params=["bccd", "nuclei"])
def unpacked(request, tmp_path_factory):
    """The whole set, in a folder with its name."""
    path = SHARED / request.param / f"{request.param}.zip"
    if not path.is_file():
        pytest.skip("the real image sets are not here")
    folder = tmp_path_factory.mktemp("sets") / request.param
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    return folder


COUNTS = {
    "bccd": {"train": (205, 2805), "val": (87, 1138), "test": (72, 945)},
    "nuclei": {"train": (498, 21233), "val": (100, 4527)},
}


def test_counts(unpacked):
    """As the files' own lists have them; nothing to mend but what the files themselves double."""
    for split, counts in COUNTS[unpacked.name].items():
        annotations, images = find_coco(unpacked, split)
        assert images == unpacked / "images" / split
        found = read_coco(annotations, images)
        found.check()
        assert (len(found.pictures), sum(len(each.instances) for each in found.pictures)) == counts
        assert found.labels.names == (("RBC", "WBC", "Platelets") if unpacked.name == "bccd" else ("nucleus",))
        assert found.summary() == ""
    if unpacked.name == "bccd":
        assert deep_check(found) == []


def test_masks_agree_with_the_judge(unpacked):
    """Of 50 nuclei, decoded, encoded and boxed; BCCD has none."""
    judge = pytest.importorskip("pycocotools.mask")
    found = read_coco(*find_coco(unpacked, "val"))
    if unpacked.name == "bccd":
        with pytest.raises(ValueError, match=r"annotation 1 \(image 1, BloodImage_00000\.jpg\) has no segmentation"):
            instance_masks(found.pictures[0], found.pictures[0].instances)
        return
    raw = {each["id"]: each for each in json.loads(found.path.read_bytes())["annotations"]}
    compared = 0
    for picture in found.pictures:
        instances = picture.instances[: 50 - compared]
        masks = instance_masks(picture, instances)
        for instance, mask, code in zip(instances, masks, encode_masks(masks), strict=True):
            expected = judge.frPyObjects(raw[instance.id]["segmentation"], *picture.size)
            np.testing.assert_array_equal(mask, judge.decode(expected))
            assert code["counts"].encode() == expected["counts"]
            assert mask.sum() == instance.area
            assert segmentation_box(instance.segmentation) == segmentation_box(code) == instance.box
        compared += len(instances)
    assert compared == 50
