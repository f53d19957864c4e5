"""Segmentors of mmseg as graphs: of pictures as a whole, or through a window that slides over them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .graph import Graph


class Segmentation(Graph):
    """A segmentor that looks at pictures as a whole: the class of each pixel (B, H', W') at the ``size`` asked for."""

    inputs = ('image', 'size')
    outputs = ('labels',)
    mode = 'whole'

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        mode = self.model.test_cfg.get('mode')
        if mode != self.mode:
            raise ValueError(f'a test in the mode {mode!r} cannot be exported: known are whole and slide')
        padding = getattr(model.data_preprocessor, 'test_cfg', None) or {}
        if padding.get('size') is not None:
            raise ValueError(f'pictures that a test pads to {padding["size"]} cannot be exported')
        self.divisor = int(padding.get('size_divisor') or 1)

    def forward(self, image: Tensor, size: Tensor) -> Tensor:
        return self.labels(self.logits(self.padded(image)), image, size)

    def logits(self, image: Tensor) -> Tensor:
        """Of each class and pixel (B, K, H, W) of a padded picture."""
        head = self.model.decode_head
        logits = head(self.model.extract_feat(image))
        return F.interpolate(logits, size=image.shape[2:], mode='bilinear', align_corners=head.align_corners)

    def labels(self, logits: Tensor, image: Tensor, size: Tensor) -> Tensor:
        """The class of each pixel (B, H', W') of logits (B, K, ...) of a padded picture."""
        head = self.model.decode_head
        height, width = size.tolist()
        torch._check(height > 0)
        torch._check(width > 0)
        logits = logits[:, :, : image.shape[2], : image.shape[3]]
        logits = F.interpolate(logits, size=(height, width), mode='bilinear', align_corners=head.align_corners)
        if logits.shape[1] == 1:
            return (logits[:, 0].sigmoid() > head.threshold).to(torch.uint8)
        return logits.argmax(1).to(torch.uint8 if logits.shape[1] <= 255 else torch.int32)


class SlidingSegmentation(Segmentation):
    """A segmentor whose window slides over the picture, and whose logits are averaged where windows overlap.

    Attributes:
        crop_hw, stride_hw: of the window; where a picture is smaller, so is the window.
    """

    mode = 'slide'

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.crop_hw, self.stride_hw = (tuple(map(int, self.model.test_cfg[key])) for key in ('crop_size', 'stride'))

    def logits(self, image: Tensor) -> Tensor:
        """See :meth:`Segmentation.logits`; not for a record, in which the sizes of windows would be confined."""
        rows, columns = (starts(*three) for three in zip(image.shape[2:], self.crop_hw, self.stride_hw, strict=True))
        total: Any = 0
        count = image.new_zeros(image.shape[2:])
        for y in rows:
            for x in columns:
                window = image[:, :, y : y + self.crop_hw[0], x : x + self.crop_hw[1]]
                h, w = window.shape[2:]
                right, below = image.shape[3] - x - w, image.shape[2] - y - h
                total = total + F.pad(super().logits(window), (x, right, y, below))
                count[y : y + h, x : x + w] += 1
        return total / count


def starts(length: int, crop: int, stride: int) -> list[int]:
    """The first pixel of each window along a side."""
    last = max(length - crop, 0)
    return [min(i * stride, last) for i in range(-(-last // stride) + 1)]
