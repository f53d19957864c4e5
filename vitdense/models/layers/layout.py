"""The only place that converts between the two layouts: tokens (B, N, C) with ``hw``, and maps (B, C, H, W)."""

from torch import Tensor
from torch.nn import functional as F


def to_tokens(x: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Map (B, C, H, W) to tokens (B, N, C), N = H * W in row order, and ``hw``. A view for channels-last maps."""
    hw = (x.shape[2], x.shape[3])
    return x.flatten(2).transpose(1, 2), hw


def to_map(tokens: Tensor, hw: tuple[int, int]) -> Tensor:
    """Tokens (B, N, C) to the map (B, C, H, W), a channels-last view."""
    return tokens.transpose(1, 2).unflatten(2, hw)


def pad_to_minimum(image: Tensor, size: int) -> Tensor:
    """Zero-pad an image (B, C, H, W) at the right and the bottom until both sides have at least ``size`` pixels."""
    height, width = image.shape[2:]
    if height >= size and width >= size:
        return image
    return F.pad(image, (0, max(size - width, 0), 0, max(size - height, 0)))
