"""CIFAR-10 on the device: stored once, cropped and mirrored there batch by batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from sources import Pictures
from torch import Tensor

CLASSES = 10
SHIFT = 2  # pixels that a crop moves at most, each way


class Images:
    """Normalised images of one data set, with room for the crops around them.

    Attributes:
        size: Training samples N.
        train_labels, test_labels: int64.
        test: [M, 3, H, W], channels last.
    """

    def __init__(self, pictures: Pictures, device: torch.device) -> None:
        images, labels, test, test_labels = pictures.images, pictures.labels, pictures.test_images, pictures.test_labels
        if test is None or test_labels is None:  # of the stand-in, whose samples are in no order
            cut = len(images) // 5
            images, labels, test, test_labels = images[cut:], labels[cut:], images[:cut], labels[:cut]
        pixels = images.to(device).float()
        mean, scale = pixels.mean((0, 1, 2)), pixels.std((0, 1, 2))
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        train = ((pixels - mean) / scale).permute(0, 3, 1, 2)
        padded = F.pad(train, (SHIFT,) * 4, mode="reflect")
        self.size, self.side = len(train), train.shape[-1]
        self._padded = padded.permute(0, 2, 3, 1).to(dtype).contiguous()  # [N, H + 4, W + 4, 3]
        self.test = ((test.to(device).float() - mean) / scale).to(dtype).permute(0, 3, 1, 2)
        self.train_labels, self.test_labels = labels.to(device), test_labels.to(device)
        self._mirrored = torch.zeros(self.size, dtype=torch.bool, device=device)
        self._pixels = torch.arange(self.side, device=device)

    def restart(self) -> None:
        """Draws which samples are mirrored at their first visit."""
        self._mirrored.copy_(torch.rand(self.size, device=self._mirrored.device) < 0.5)

    def batch(self, index: Tensor) -> Tensor:
        """Augmented samples ``index`` [B]: [B, 3, H, W], channels last.

        A random crop of the padded image, and mirrored at every second visit: so a sample that is often pruned is seen from both
        sides as evenly as one that is not.
        """
        mirrored = self._mirrored[index]
        self._mirrored[index] = ~mirrored
        corner = torch.randint(2 * SHIFT + 1, (2, len(index), 1), device=index.device)
        rows = corner[0] + self._pixels
        columns = corner[1] + torch.where(mirrored[:, None], self.side - 1 - self._pixels, self._pixels)
        return self._padded[index[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

    def patches(self, side: int, count: int = 5000) -> Tensor:
        """All patches of the first ``count`` training images: float32 [P, 3 * side * side], as a convolution sees them."""
        images = self._padded[:count, SHIFT:-SHIFT, SHIFT:-SHIFT].float().permute(0, 3, 1, 2)
        windows = images.unfold(2, side, side).unfold(3, side, side)
        return windows.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3 * side * side)
