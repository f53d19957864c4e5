"""What all exported graphs share."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitdense.ops.ms_deform_attn.module import sizes_tensor

from .recordable import recordable


class Graph(nn.Module):
    """A model that takes pictures (B, 3, H, W), resized and normalised but not padded.

    Attributes:
        inputs, outputs: their names.
    """

    inputs: tuple[str, ...] = ('image',)
    outputs: tuple[str, ...] = ('boxes', 'scores', 'labels')

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = recordable(model)
        preprocessor = model.data_preprocessor
        self.divisor = int(getattr(preprocessor, 'pad_size_divisor', 1) or 1)

    def padded(self, image: Tensor) -> Tensor:
        """Pictures as a test pads them."""
        if self.divisor == 1:
            return image
        height, width = image.shape[2:]
        return F.pad(image, (0, -width % self.divisor, 0, -height % self.divisor))


def corner_of(image: Tensor) -> Tensor:
    """Width, height, width and height of pictures (B, C, H, W), as a tensor (4,) of floats."""
    return sizes_tensor([(image.shape[3], image.shape[2])], torch.float32, image.device).flatten().repeat(2)
