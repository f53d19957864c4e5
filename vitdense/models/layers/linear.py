"""Linear layers that are fast on every processor."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Linear(nn.Linear):
    """``nn.Linear`` that goes through oneDNN where PyTorch would call MKL: in float32 on a CPU with AVX-512.

    MKL leaves AVX-512 unused on processors that are not Intel's: there oneDNN takes less than half the time. PyTorch
    has oneDNN in its convolutions only, so the rows become a channels-last map, and the layer a 1 x 1 convolution.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (..., C) to (..., C')."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``F.linear`` as :class:`Linear` computes it."""
    rows = x.reshape(-1, x.shape[-1])
    if not _leaves_avx512_unused(x) or len(rows) < SAMPLES:
        return F.linear(x, weight, bias)
    rest = len(rows) % SAMPLES
    whole = rows[: len(rows) - rest]
    samples = next(count for count in range(4 * SAMPLES, 0, -1) if len(whole) % count == 0)
    fixed = None if bias is None else bias.detach()
    out = F.conv2d(whole.unflatten(0, (samples, -1)).transpose(1, 2).unsqueeze(2), weight[:, :, None, None], fixed)
    out = out.squeeze(2).transpose(1, 2).flatten(0, 1)
    if rest:
        out = torch.cat([out, F.linear(rows[-rest:], weight, fixed)])
    out = out.reshape(*x.shape[:-1], -1)
    return out if bias is None else _AddedBias.apply(out, bias)


SAMPLES = 16
"""From this many on, PyTorch hands a 1 x 1 convolution to oneDNN, also on a single thread."""


def _leaves_avx512_unused(x: Tensor) -> bool:
    if torch.compiler.is_compiling() or x.device.type != 'cpu' or x.dtype != torch.float32:
        return False
    return _AVX512 and not torch.is_autocast_enabled('cpu')


_AVX512 = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability().startswith('AVX512')


class _AddedBias(torch.autograd.Function):
    """Gives a bias that was added before its gradient: oneDNN's own sum takes as long as a matrix product."""

    @staticmethod
    def forward(ctx, out: Tensor, bias: Tensor) -> Tensor:
        return out.view_as(out)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        return grad, grad.flatten(0, -2).sum(0)


def by_rows(function: Callable[[Tensor], Tensor], x: Tensor, width: int) -> Tensor:
    """``function(x)`` for tokens (B, N, C) that it treats one by one; on a CPU, as many at once as fit in cache.

    ``width`` are the channels of the widest tensor inside. Without all of it at once, the peak of memory is lower.
    """
    if x.device.type != 'cpu' or torch.compiler.is_compiling():
        return function(x)
    rows = max(1, PIECE // (x.shape[0] * width * x.element_size()))
    pieces = x.split(rows, dim=1)
    return function(x) if len(pieces) == 1 else torch.cat([function(piece) for piece in pieces], dim=1)


PIECE = 2**23
"""Bytes of the widest tensor in a piece."""
