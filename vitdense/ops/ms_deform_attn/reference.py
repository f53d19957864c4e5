"""The specification: bilinear sampling by ``grid_sample``. Runs on any device, and can be exported."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def unavailable(device: torch.device) -> None:
    """Never: it runs everywhere."""


def forward(
    value: Tensor, spatial_shapes: Sequence[int], sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """Values (B, S, M, D) to (B, Q, M * D), as :func:`~vitdense.ops.ms_deform_attn.ms_deform_attn` does.

    ``spatial_shapes`` is flat: H and W of each level. Half types are computed in float32.
    """
    b, q, m = sampling_locations.shape[:3]
    out = sampling_locations.new_zeros(b * m, value.shape[3], q)
    weights = attention_weights.permute(3, 0, 2, 1, 4).flatten(1, 2)  # (L, B * M, Q, P)
    for level, (maps, grid) in enumerate(_levels(value, spatial_shapes, sampling_locations)):
        samples = F.grid_sample(maps, grid, align_corners=False)  # (B * M, D, Q, P)
        out = out + (samples * weights[level][:, None]).sum(3)
    return out.unflatten(0, (b, m)).permute(0, 3, 1, 2).flatten(2).contiguous().to(value.dtype)


def backward(
    grad_output: Tensor,
    value: Tensor,
    spatial_shapes: Sequence[int],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by value, locations and weights, in their types, of the output's gradient (B, Q, M * D)."""
    b, q, m = sampling_locations.shape[:3]
    weights = attention_weights.permute(3, 0, 2, 1, 4).flatten(1, 2)
    grad_out = grad_output.to(weights.dtype).view(b, q, m, value.shape[3]).permute(0, 2, 3, 1).flatten(0, 1)[..., None]
    grad_maps, grad_grids, grad_weights = [], [], []
    for level, (maps, grid) in enumerate(_levels(value, spatial_shapes, sampling_locations)):
        samples = F.grid_sample(maps, grid, align_corners=False)
        grad_weights.append((samples * grad_out).sum(1))  # (B * M, Q, P)
        # below autograd, where operators run, nothing is recorded: the derivative has to be called by its name
        bilinear, zeros, align_corners = 0, 0, False
        by_maps, by_grid = torch.ops.aten.grid_sampler_2d_backward(
            grad_out * weights[level][:, None], maps, grid, bilinear, zeros, align_corners, (True, True)
        )
        grad_maps.append(by_maps.flatten(2))
        grad_grids.append(2 * by_grid)
    grad_value = torch.cat(grad_maps, dim=2).unflatten(0, (b, m)).permute(0, 3, 1, 2)  # (B, S, M, D)
    grad_locations = torch.stack(grad_grids).unflatten(1, (b, m)).permute(1, 3, 2, 0, 4, 5)
    grad_attention = torch.stack(grad_weights).unflatten(1, (b, m)).permute(1, 3, 2, 0, 4)
    return grad_value.to(value.dtype).contiguous(), grad_locations.contiguous(), grad_attention.contiguous()


def _levels(
    value: Tensor, spatial_shapes: Sequence[int], sampling_locations: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each level its maps (B * M, D, H, W) and the grid (B * M, Q, P, 2) of ``grid_sample``, in -1 to 1."""
    sizes = [(spatial_shapes[i], spatial_shapes[i + 1]) for i in range(0, len(spatial_shapes), 2)]
    grids = (2 * sampling_locations - 1).permute(3, 0, 2, 1, 4, 5).flatten(1, 2)  # (L, B * M, Q, P, 2)
    levels = value.to(sampling_locations.dtype).split([h * w for h, w in sizes], dim=1)
    for level, grid, hw in zip(levels, grids, sizes, strict=True):
        yield level.permute(0, 2, 3, 1).flatten(0, 1).unflatten(2, hw), grid
