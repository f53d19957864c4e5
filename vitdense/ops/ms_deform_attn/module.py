"""The attention module around the operator."""

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from .operator import Shapes, flat_shapes, ms_deform_attn


class MSDeformAttn(nn.Module):
    """Multi-scale deformable attention with its projections (Deformable DETR, arXiv:2010.04159, section 4.1).

    Parameter names are those of the official release. Locations and weights are float32 in every precision.

    Args:
        channels: C of queries and values.
        num_levels, num_heads, num_points: L, M, and P, the samples that a query takes of each level in each head.
        value_ratio: channels of the projected values over C (ViT-Adapter, arXiv:2205.08534, uses 0.5 and 1).
        linear: class of the projections.

    Raises:
        ValueError: the channels cannot be divided among the heads.
    """

    def __init__(
        self,
        channels: int = 256,
        num_levels: int = 4,
        num_heads: int = 8,
        num_points: int = 4,
        value_ratio: float = 1.0,
        linear: type[nn.Linear] = nn.Linear,
    ) -> None:
        super().__init__()
        value_channels = int(channels * value_ratio)
        if channels % num_heads or value_channels % num_heads:
            raise ValueError(
                f'channels: expected a multiple of num_heads = {num_heads}, '
                f'found {channels}, of which {value_channels} for the values'
            )
        self.num_levels = num_levels
        self.num_heads = num_heads
        self.num_points = num_points
        samples = num_heads * num_levels * num_points
        self.sampling_offsets = linear(channels, 2 * samples)
        self.attention_weights = linear(channels, samples)
        self.value_proj = linear(channels, value_channels)
        self.output_proj = linear(value_channels, channels)
        self.init_weights()

    def init_weights(self) -> None:
        """Point p of head m starts p pixels away in direction m of M, all with equal weights (appendix A.4)."""
        angles = torch.arange(self.num_heads) * (2 * math.pi / self.num_heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
        directions /= directions.abs().amax(-1, keepdim=True)
        distances = torch.arange(1.0, self.num_points + 1)
        offsets = directions[:, None, None] * distances[:, None]  # (M, 1, P, 2)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.expand(-1, self.num_levels, -1, -1).flatten())
        for zero in (self.sampling_offsets.weight, self.attention_weights.weight, self.attention_weights.bias):
            nn.init.zeros_(zero)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(
        self,
        query: Tensor,
        reference_points: Tensor,
        value: Tensor,
        spatial_shapes: Shapes,
        padding_mask: Tensor | None = None,
    ) -> Tensor:
        """Attend from each query to its samples of the pyramid.

        Args:
            query: tokens (B, Q, C), position embedding included.
            reference_points: (B, Q, L, 2), xy in [0, 1] of each level, from which offsets count in its pixels; or boxes
                (B, Q, L, 4), cxcywh, from which they count in halves of the box over P.
            value: tokens (B, S, C) of all levels, one after the other.
            spatial_shapes: (H, W) of each level, as Python integers or a tensor (L, 2).
            padding_mask: (B, S), True where an image is padded; such values count as zero.

        Returns:
            Tensor: (B, Q, C).

        Raises:
            ValueError: an argument does not fit the others, or the module.
        """
        sizes_hw = tuple(zip(*[iter(flat_shapes(spatial_shapes))] * 2, strict=True))
        self._check(query, reference_points, value, len(sizes_hw), padding_mask)
        b, q, _ = query.shape
        value = self.value_proj(value)
        if padding_mask is not None:
            value = value.masked_fill(padding_mask[..., None], 0)
        value = value.unflatten(2, (self.num_heads, -1))  # (B, S, M, D)
        offsets = _wide(self.sampling_offsets(query)).view(b, q, self.num_heads, self.num_levels, self.num_points, 2)
        weights = (
            _wide(self.attention_weights(query)).view(b, q, self.num_heads, -1).softmax(-1).view(offsets.shape[:-1])
        )
        locations = self._locations(_wide(reference_points)[:, :, None, :, None], offsets, sizes_hw)
        return self.output_proj(ms_deform_attn(value, sizes_hw, locations, weights))

    def _locations(self, reference: Tensor, offsets: Tensor, sizes_hw: tuple[tuple[int, int], ...]) -> Tensor:
        """Reference points (B, Q, 1, L, 1, 2 or 4) and offsets (B, Q, M, L, P, 2) to locations of their shape."""
        if reference.shape[-1] == 4:
            return reference[..., :2] + offsets * (reference[..., 2:] * (0.5 / self.num_points))
        return reference + offsets / _sizes_xy(sizes_hw, offsets)[:, None]

    def _check(
        self, query: Tensor, reference_points: Tensor, value: Tensor, levels: int, padding_mask: Tensor | None
    ) -> None:
        if levels != self.num_levels:
            raise ValueError(f'spatial_shapes: expected {self.num_levels} levels, found {levels}')
        expected = (*query.shape[:2], self.num_levels)
        if reference_points.shape[:-1] != expected or reference_points.shape[-1] not in (2, 4):
            raise ValueError(
                f'reference_points: expected (B, Q, L, 2 or 4) = {(*expected, "2 or 4")}, '
                f'found {tuple(reference_points.shape)}'
            )
        if padding_mask is not None and padding_mask.shape != value.shape[:2]:
            raise ValueError(
                f'padding_mask: expected (B, S) = {tuple(value.shape[:2])}, found {tuple(padding_mask.shape)}'
            )

    def extra_repr(self) -> str:
        return f'num_levels={self.num_levels}, num_heads={self.num_heads}, num_points={self.num_points}'


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _sizes_xy(sizes_hw: tuple[tuple[int, int], ...], like: Tensor) -> Tensor:
    """W and H of each level (L, 2)."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return sizes_tensor(sizes_hw, like.dtype, like.device).flip(-1)
    return _cached_sizes_xy(sizes_hw, like.dtype, like.device)


@lru_cache(maxsize=256)
def _cached_sizes_xy(sizes_hw: tuple[tuple[int, int], ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    # a copy to the GPU waits for it, and tensors of inference mode could not be used in training later
    with torch.inference_mode(False):
        return sizes_tensor(sizes_hw, dtype, device).flip(-1)


def sizes_tensor(sizes: Sequence[Sequence[int]], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Pairs of integers as a tensor (L, 2), which in a trace or an export depends on the image as they do."""
    if torch.jit.is_tracing():
        sides = [torch.as_tensor(side, device=device) for pair in sizes for side in pair]
    elif torch.compiler.is_exporting():
        sides = [torch.scalar_tensor(side, dtype=dtype, device=device) for pair in sizes for side in pair]
    else:
        return torch.tensor(sizes, dtype=dtype, device=device)
    return torch.stack(sides).to(dtype).unflatten(0, (-1, 2))
