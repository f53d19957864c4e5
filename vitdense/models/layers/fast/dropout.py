"""Dropout that is fast on CPUs, too, and keeps no mask there."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .linear import is_recorded

PIECE = 2**16
"""Numbers drawn at once on a CPU: as many as stay in its cache."""


class Dropout(nn.Dropout):
    """``nn.Dropout`` by :func:`dropout`."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        return dropout(x, self.p) if self.training else x


def dropout(x: Tensor, p: float) -> Tensor:
    """``F.dropout`` in training.

    On a CPU a 64-bit number decides over four values, to 1 / 65536 of a probability, where PyTorch draws two numbers
    for each value; and the backward pass draws them again from the same seed.
    """
    if p == 0:
        return x
    return _Dropout.apply(x, p, _new_seed()) if _draws_itself(x, p) else F.dropout(x, p)


def relu_dropout(x: Tensor, p: float) -> Tensor:
    """``dropout(F.relu(x), p)``, in place for a contiguous tensor on a CPU.

    Nothing else may need ``x``, not even for its own gradient.
    """
    if p == 0 or not x.is_contiguous() or not _draws_itself(x, p):
        return dropout(F.relu(x), p)
    return _ReLUDropout.apply(x, p)


def _draws_itself(x: Tensor, p: float) -> bool:
    return x.device.type == 'cpu' and p < 1 and x.numel() > 0 and not is_recorded()


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, p: float, seed: int) -> Tensor:
        ctx.p, ctx.seed = p, seed
        return _Dropout._scale(x, p, seed)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Dropout._scale(grad, ctx.p, ctx.seed), None, None

    @staticmethod
    def _scale(x: Tensor, p: float, seed: int) -> Tensor:
        x = x.contiguous()
        out = torch.empty_like(x)
        for part, result, scale in zip(_pieces(x), _pieces(out), _scales(x.numel(), p, seed), strict=True):
            torch.mul(part, scale, out=result)
        return out


class _ReLUDropout(torch.autograd.Function):
    """The result says itself what was dropped or negative: what is zero."""

    @staticmethod
    def forward(ctx, x: Tensor, p: float) -> Tensor:
        ctx.mark_dirty(x)
        for part, scale in zip(_pieces(x), _scales(x.numel(), p, _new_seed()), strict=True):
            part.relu_().mul_(scale)
        ctx.save_for_backward(x)
        ctx.factor = 1 / (1 - p)
        return x

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        grad = grad.contiguous()
        out = torch.empty_like(grad)
        scale = torch.empty(min(PIECE, x.numel()), dtype=grad.dtype)
        for part, result, kept in zip(_pieces(grad), _pieces(out), _pieces(x), strict=True):
            factors = scale[: len(kept)]
            torch.gt(kept, 0, out=factors)
            torch.mul(part, factors.mul_(ctx.factor), out=result)
        return out, None


def _pieces(x: Tensor) -> tuple[Tensor, ...]:
    return x.view(-1).split(PIECE)


def _new_seed() -> int:
    return int(torch.randint(2**62, (1,)).numpy()[0])


def _scales(count: int, p: float, seed: int) -> Iterator[Tensor]:
    """For each piece of ``count`` values, 0 or 1 / (1 - p) for each of them; the next overwrites it."""
    generator = torch.Generator().manual_seed(seed)
    most = min(PIECE, -(-count // 4) * 4)
    bits = torch.empty(most // 4, dtype=torch.int64)
    scale = torch.empty(most)
    threshold = round(p * 2**16) - 2**15
    for start in range(0, count, PIECE):
        bits.random_(-(2**63), None, generator=generator)
        torch.ge(bits.view(torch.int16), threshold, out=scale)
        yield scale.mul_(1 / (1 - p))[: count - start]
