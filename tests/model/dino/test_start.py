"""The weights that training starts from, against the bounds of the released code's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from internimage.model.detection.dino.start import start
from internimage.model.detection.dino.transformer import DinoTransformer

from .conftest import TINY


@pytest.fixture(scope="module")
def transformer() -> DinoTransformer:
    torch.manual_seed(0)
    made = DinoTransformer(replace(TINY, num_classes=20, channels=64, heads=4, hidden_channels=128))
    start(made)
    return made


@pytest.mark.parametrize(
    ("name", "square"),
    [
        # 6 / (inputs + outputs); query, key and value count as one matrix, heads are PyTorch's own: 1 / inputs.
        ("encoder.0.self_attn.value_proj", 6 / 128),
        ("encoder.0.mlp.fc1", 6 / 192),
        ("decoder.1.self_attn.q_proj", 6 / 256),
        ("decoder.1.self_attn.v_proj", 6 / 256),
        ("decoder.1.self_attn.o_proj", 6 / 128),
        ("proposing", 6 / 128),
        ("box_position.layers.0", 6 / 192),
        ("class_heads.2", 1 / 64),
        ("box_heads.1.layers.1", 1 / 64),
    ],
)
def test_how_large_matrices_are(transformer: DinoTransformer, name: str, square: float) -> None:
    largest = float(transformer.state_dict()[name + ".weight"].abs().max())
    assert 0.97 * square**0.5 < largest <= square**0.5


def test_which_biases_are_zero(transformer: DinoTransformer) -> None:
    state = transformer.state_dict()
    for key in ("encoder.0.self_attn.value_proj", "decoder.0.self_attn.k_proj", "decoder.0.encoder_attn.output_proj"):
        assert not state[key + ".bias"].any()
    for key in ("encoder.0.mlp.fc2", "proposing", "box_position.layers.1", "box_heads.0.layers.0"):
        assert state[key + ".bias"].all()
    assert torch.allclose(state["class_heads.2.bias"].sigmoid(), torch.tensor(0.01))
    assert not state["box_heads.2.layers.2.weight"].any()
    assert not state["box_heads.2.layers.2.bias"].any()


def test_heads_look_into_their_own_directions(transformer: DinoTransformer) -> None:
    """Four heads: right, down, left, up; the second point twice as far."""
    state, looks = transformer.state_dict(), "decoder.0.encoder_attn.sampling_offsets"
    assert not state[looks + ".weight"].any()
    points = state[looks + ".bias"].view(4, 4, 2, 2)
    directions = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    for level in range(4):
        assert torch.allclose(points[:, level, 0], directions, atol=1e-6)
        assert torch.allclose(points[:, level, 1], 2 * directions, atol=1e-6)
