"""A small convolutional network that learns CIFAR-10 in seconds, and starts anew in place, so that a captured step stays valid.

What makes it quick is known: filters that whiten patches, identity-like convolutions at the start, normalisation without a gain,
pooling early (Page, "How to train your ResNet", 2018; Jordan, "94 % on CIFAR-10 in 3.29 seconds", arXiv 2404.00498).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCH = 2


class Block(nn.Module):
    """Two or three convolutions at half the resolution; the third is added to what the first gave."""

    def __init__(self, inputs: int, outputs: int, depth: int) -> None:
        super().__init__()
        widths = [inputs, *[outputs] * depth]
        self.convolutions = nn.ModuleList(nn.Conv2d(one, other, 3, padding=1, bias=False) for one, other in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm2d(outputs, momentum=0.4) for _ in range(depth))
        for norm in self.norms:
            norm.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = first = F.gelu(self.norms[0](F.max_pool2d(self.convolutions[0](x), 2)))
        x = F.gelu(self.norms[1](self.convolutions[1](x)))
        if len(self.norms) == 2:
            return x
        return F.gelu(first + self.norms[2](self.convolutions[2](x)))


class Network(nn.Module):
    """A stem of whitening filters, which is not trained but for its bias, three blocks, and a linear head.

    Args:
        widths: Channels of the blocks.
        depth: Convolutions of a block, 2 or 3.
        patches: float32 [P, 12], of which the whitening filters are made.
        classes: Width of the output.
    """

    def __init__(self, widths: tuple[int, int, int], depth: int, patches: Tensor, classes: int) -> None:
        super().__init__()
        self.register_buffer("filters", whitening_filters(patches), persistent=False)
        self.stem_bias = nn.Parameter(torch.zeros(len(self.filters)))
        inputs = [len(self.filters), *widths[:-1]]
        self.blocks = nn.ModuleList(Block(one, other, depth) for one, other in zip(inputs, widths, strict=True))
        self.head = nn.Linear(widths[-1], classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, classes] of images [B, 3, H, W]."""
        x = F.gelu(F.conv2d(x, self.filters.to(x.dtype), self.stem_bias.to(x.dtype)))
        for block in self.blocks:
            x = block(x)
        return self.head(x.amax((2, 3))) / 9

    def norm_biases(self) -> Iterator[nn.Parameter]:
        """The biases of the normalisations."""
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                yield module.bias

    @torch.no_grad()
    def restart(self) -> None:
        """New weights from torch's global generators, where the old ones lie."""
        self.stem_bias.zero_()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()
                nn.init.dirac_(module.weight[: module.in_channels])  # the first filters hand their input on
            elif isinstance(module, nn.BatchNorm2d | nn.Linear):
                module.reset_parameters()


def whitening_filters(patches: Tensor, floor: float = 5e-4) -> Tensor:
    """Both signs of the principal directions of patches [P, 12], at unit variance: [24, 3, 2, 2]."""
    centred = patches - patches.mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(patches))
    filters = (vectors / (values + floor).sqrt()).T.reshape(-1, 3, PATCH, PATCH)
    return torch.cat([filters, -filters])
