"""Find the pictures that look most like another: features of a backbone, compared by their cosine.

The shipped network has learned airplanes, cats and trucks; here it compares clothes that it has never seen.
"""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import internimage
from internimage.data import SAMPLE_LABELS, load_sample_arrays, to_tensor

WEIGHTS = "internimage_pico.cifar10_32"
PICTURES, QUERIES, NEIGHBOURS = 500, 60, 5


def features(pictures: list[Image.Image]) -> Tensor:
    """(N, C): the last two stages' maps, averaged over the picture, each of length 1."""
    preprocess = internimage.Classifier(WEIGHTS, device="cpu").preprocess
    images = torch.stack([to_tensor(picture.convert("RGB"), preprocess) for picture in pictures])
    backbone = internimage.create_model("internimage_pico", pretrained=WEIGHTS, features_only=True, stem_strides=(1, 2))
    with torch.inference_mode():
        maps = backbone.eval()(images)[2:]
    return torch.cat([F.normalize(each.mean((2, 3)), dim=1) for each in maps], dim=1)


if __name__ == "__main__":
    arrays, labels = load_sample_arrays("test")
    truth = torch.from_numpy(labels[: PICTURES + QUERIES])
    vectors = features([Image.fromarray(array) for array in arrays[: PICTURES + QUERIES]])
    known, asked = vectors[:PICTURES], vectors[PICTURES:]
    nearest = (asked @ known.T).topk(NEIGHBOURS).indices
    for query in range(6):
        found = ", ".join(SAMPLE_LABELS[int(truth[index])] for index in nearest[query])
        print(f"{SAMPLE_LABELS[int(truth[PICTURES + query])]:<12} looks like  {found}")
    same = (truth[nearest] == truth[PICTURES:, None]).float().mean()
    print(f"of the {NEIGHBOURS} nearest of {PICTURES}, {same:.0%} are of the same class; by chance, 10% would be")
    assert same > 0.5
