"""Two InternImages as one backbone: the lead network sees, at every stage, what the assisting one found so far.

Shape legend: N batch, H W map, C channels.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from internimage.model.backbone import InternImage
from internimage.model.config import NUM_STAGES, InternImageConfig
from internimage.model.layers import to_nchw, to_nhwc


class CompositeInternImage(nn.Module):
    """Two InternImages of one configuration, each with weights of its own; the maps are the lead network's.

    The assisting network runs first. The lead has no stem: it starts from the assisting network's, and before each
    of its stages i the assisting maps a_j of that stage and all later ones are added:

    ``x + gamma_i * sum over j >= i of up(link_ij(a_j))``

    A link is a 1x1 convolution from stage j's channels to stage i's; ``a_i`` itself is added as it is. ``up`` repeats
    positions: position (y, x) of stage i reads (y >> (j - i), x >> (j - i)) of stage j, so that any image size works;
    the released code takes multiples of 32 alone, where this is its nearest upsampling. The gammas start at zero, so
    that training starts from the lead network alone.

    Source: dense higher-level composition of CBNetV2, arXiv:2107.00420; ``CBInternImage`` of the released code
    (detection/mmdet_custom/models/backbones/cbnet.py, 31c962d).

    Args:
        config: of both networks.

    >>> model = CompositeInternImage(InternImageConfig.from_variant("femto"))
    >>> [tuple(map.shape) for map in model(torch.zeros(1, 3, 64, 40))]
    [(1, 24, 16, 10), (1, 48, 8, 5), (1, 96, 4, 3), (1, 192, 2, 2)]
    """

    def __init__(self, config: InternImageConfig) -> None:
        super().__init__()
        self.config = config
        self.assisting = InternImage(config)
        self.lead = InternImage(config, has_stem=False)
        widths = config.stage_channels
        # By stage, then by the assisting stage that is linked to it.
        self.links = nn.ModuleList(
            nn.ModuleDict({str(j): nn.Conv2d(widths[j], widths[i], 1) for j in range(i + 1, NUM_STAGES)})
            for i in range(NUM_STAGES)
        )
        self.gammas = nn.ParameterList(nn.Parameter(torch.zeros(width)) for width in widths)

    @property
    def num_features(self) -> tuple[int, ...]:
        """Channels of the four maps."""
        return self.config.stage_channels

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """As `InternImage.set_grad_checkpointing`, in both networks."""
        self.assisting.set_grad_checkpointing(enable)
        self.lead.set_grad_checkpointing(enable)

    def forward(self, image_NCHW: Tensor) -> list[Tensor]:
        """The lead network's four maps as NCHW tensors (channels-last in memory); raises as `InternImage`."""
        return self.forward_both(image_NCHW)[1]

    def forward_both(self, image_NCHW: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The assisting network's four maps, for losses of its own in training, and the lead's; raises as `forward`."""
        assisting, lead = self._run(image_NCHW)
        return [to_nchw(map_NHWC) for map_NHWC in assisting], [to_nchw(map_NHWC) for map_NHWC in lead]

    def forward_stages(self, image_NCHW: Tensor, count: int = NUM_STAGES) -> list[Tensor]:
        """The lead network's four maps channels-last, or the first ``count`` of them; raises as `InternImage`."""
        return self._run(image_NCHW, count)[1]

    def _run(self, image_NCHW: Tensor, count: int = NUM_STAGES) -> tuple[list[Tensor], list[Tensor]]:
        stem_NHWC = self.assisting.forward_stem(image_NCHW)
        assisting = self.assisting.run_stages(stem_NHWC)

        def enter(stage: int, x_NHWC: Tensor) -> Tensor:
            return torch.addcmul(x_NHWC, half_rounded(self.gammas[stage]), self._help(stage, assisting))

        return assisting, self.lead.run_stages(stem_NHWC, count, enter=enter)

    def _help(self, stage: int, assisting: list[Tensor]) -> Tensor:
        """What all later assisting maps say at the resolution of ``stage``, summed from the coarsest up."""
        links = cast(nn.ModuleDict, self.links[stage])
        total_NCHW: Tensor | None = None
        for source in reversed(range(stage, NUM_STAGES)):
            term_NCHW = to_nchw(assisting[source])
            term_NCHW = term_NCHW if source == stage else cast(Tensor, links[str(source)](term_NCHW))
            if total_NCHW is not None:
                # Twofold steps are added at the lower resolution: the same sum, and fewer large maps.
                term_NCHW = term_NCHW + functional.interpolate(total_NCHW, size=term_NCHW.shape[-2:], mode="nearest")
            total_NCHW = term_NCHW
        assert total_NCHW is not None
        return to_nhwc(total_NCHW)


def half_rounded(gamma: Tensor) -> Tensor:
    """``gamma`` rounded to float16, in its own dtype, as the released code multiplies by it in every precision.

    The gradient passes as if nothing was rounded; the released code's own is rounded to float16 too, where what is
    small becomes zero.

    >>> half_rounded(torch.tensor([0.1]))
    tensor([0.1000])
    """
    # The difference of two such near numbers is exact, and so is the sum.
    return gamma + (gamma.half().to(gamma.dtype) - gamma).detach()
