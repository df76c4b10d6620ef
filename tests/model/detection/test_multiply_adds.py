"""The cost that the model tables publish for 1280 x 800 pixels, counted by PyTorch on the meta device.

As there: every image has 1,000 boxes and 100 masks. Source: ``forward_dummy`` of mmdet 2.28 with detection/get_flops.py
of the released code, 31c962d; published in detection/configs/coco/README.md.
"""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from internimage.model.detection import DetectorConfig, InternImageDetector

PUBLISHED = {"t": 270, "s": 340, "b": 501, "l": 1399, "xl": 1782}
_BOXES, _MASKS = 1000, 100


@pytest.mark.parametrize("variant", PUBLISHED)
def test_multiply_adds_are_the_published_ones(variant: str) -> None:
    with torch.device("meta"):
        detector = InternImageDetector(DetectorConfig.from_variant(variant)).eval()
        image, box = torch.empty(1, 3, 800, 1280), torch.empty(_BOXES, 256, 7, 7)
        mask = torch.empty(_MASKS, 256, 14, 14)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        maps = detector.pyramid(image)
        detector.rpn.head(maps)
        for head in detector.roi_heads.box_heads:
            head(box)
        for head in detector.roi_heads.mask_heads:
            head(mask)
    assert counter.get_total_flops() / 2e9 == pytest.approx(PUBLISHED[variant], rel=0.005)
