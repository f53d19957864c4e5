"""Deformable attention written with gathers in float64, and inputs for it."""

from collections.abc import Sequence

import torch
from torch import Tensor

Hws = Sequence[tuple[int, int]]


def gathered(value: Tensor, hws: Hws, locations: Tensor, weights: Tensor) -> Tensor:
    """Value (B, N, M, D), locations (B, Q, M, L, P, 2), weights (B, Q, M, L, P) to (B, Q, M*D) in float64."""
    value, locations, weights = value.double(), locations.double(), weights.double()
    batch, _, heads, _ = value.shape
    b = torch.arange(batch, device=value.device)[:, None, None, None]
    m = torch.arange(heads, device=value.device)[None, None, :, None]
    output, start = 0, 0
    for level, (h, w) in enumerate(hws):
        x, y = locations[:, :, :, level, :, 0] * w - 0.5, locations[:, :, :, level, :, 1] * h - 0.5
        inside = (x > -1) & (x < w) & (y > -1) & (y < h)
        x, y = (torch.where(inside, place, 0) for place in (x, y))
        for dx in (0, 1):
            for dy in (0, 1):
                column, row = x.floor() + dx, y.floor() + dy
                exists = inside & (column >= 0) & (column < w) & (row >= 0) & (row < h)
                number = torch.where(exists, start + row * w + column, 0).long()
                share = (1 - (x - column).abs()) * (1 - (y - row).abs()) * weights[:, :, :, level]
                pixel = torch.where(exists[..., None], value[b, number, m], 0)  # (B, Q, M, P, D)
                output = output + (torch.where(exists, share, 0)[..., None] * pixel).sum(3)
        start += h * w
    return output.flatten(2)


def inputs(
    hws: Hws,
    batch: int = 2,
    queries: int = 5,
    heads: int = 2,
    width: int = 4,
    points: int = 3,
    dtype: torch.dtype = torch.float32,
    device: str = 'cpu',
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Value, locations in [-0.5, 1.5] and weights that sum to 1, of which none requires gradients."""
    draw = torch.Generator().manual_seed(seed)
    pixels = sum(h * w for h, w in hws)
    wide = torch.promote_types(dtype, torch.float32)
    value = torch.randn(batch, pixels, heads, width, generator=draw, dtype=wide).to(dtype)
    samples = (batch, queries, heads, len(hws), points)
    locations = torch.rand(*samples, 2, generator=draw, dtype=wide) * 2 - 0.5
    weights = torch.rand(samples, generator=draw, dtype=wide)
    weights /= weights.sum((3, 4), keepdim=True)
    return value.to(device), locations.to(device), weights.to(device)


def off_edges(locations: Tensor, hws: Hws, margin: float = 0.02) -> Tensor:
    """Move locations so that none is within ``margin`` pixels of where interpolation has a kink."""
    sizes_xy = torch.tensor(hws, device=locations.device).flip(1)[:, None]
    pixel = locations * sizes_xy - 0.5
    whole = pixel.floor()
    return (whole + (pixel - whole).clamp(margin, 1 - margin) + 0.5) / sizes_xy


def gradients(output: Tensor, *wrt: Tensor) -> tuple[Tensor, ...]:
    """Gradients of a weighted sum of the output, each element with its own weight."""
    weights = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).to(output.device, output.dtype)
    return torch.autograd.grad(output, wrt, weights.view_as(output))
