"""Attention on CPUs in pieces, whose weights neither leave the cache nor are kept for the backward pass.

PyTorch's fused kernel for CPUs has no gradient of an additive mask.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

PIECE = 2**20
"""Bytes of the attention weights that are computed at once."""

Index = Any
"""What selects the part of a tensor that belongs to a piece."""


def in_pieces(
    weigh: Callable[..., Tensor], shape: Sequence[int], pieces: Sequence[tuple[Index, ...]], *tensors: Tensor
) -> Tensor:
    """``weigh`` of the parts of all tensors, for each piece; the backward pass computes it again.

    Args:
        weigh: from the parts of a piece to its part of the result.
        shape: of the result.
        pieces: the parts that each piece takes, one for each of the tensors. That of the first is also that of the
            result, and no two pieces share any of it; the others may overlap.
        tensors: all of one type and device.
    """
    return _InPieces.apply(weigh, shape, pieces, *tensors)


class _InPieces(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, weigh: Callable[..., Tensor], shape: Sequence[int], pieces: Sequence[tuple[Index, ...]], *tensors: Tensor
    ) -> Tensor:
        ctx.save_for_backward(*tensors)
        ctx.weigh, ctx.pieces = weigh, pieces
        out = tensors[0].new_empty(shape)
        for piece in pieces:
            out[piece[0]] = weigh(*_parts(tensors, piece))
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        first, *others = tensors = ctx.saved_tensors  # which activation checkpointing gives out only once
        grad_first, grad_others = torch.empty_like(first), [torch.zeros_like(x) for x in others]
        for piece in ctx.pieces:
            parts = [part.detach().requires_grad_() for part in _parts(tensors, piece)]
            with torch.enable_grad():
                out = ctx.weigh(*parts)
            grad_first[piece[0]], *grads = torch.autograd.grad(out, parts, grad[piece[0]])
            for total, index, part in zip(grad_others, piece[1:], grads, strict=True):
                total[index] += part
        return None, None, None, grad_first, *grad_others


def _parts(tensors: Sequence[Tensor], piece: tuple[Index, ...]) -> list[Tensor]:
    return [x[index] for x, index in zip(tensors, piece, strict=True)]
