"""Linear layers that are fast on every processor, and where all shortcuts have to stay away."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Linear(nn.Linear):
    """``nn.Linear`` that goes through oneDNN where PyTorch would call MKL: in float32 on a CPU with AVX-512.

    MKL leaves AVX-512 unused on processors that are not Intel's: there oneDNN takes half the time.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (..., C) to (..., C')."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``F.linear`` as :class:`Linear` computes it."""
    if not _goes_through_onednn(x):
        return F.linear(x, weight, bias)
    if x.ndim == 2:
        return _OneDNN.apply(x, weight, bias)
    return _OneDNN.apply(x.reshape(-1, x.shape[-1]), weight, bias).unflatten(0, x.shape[:-1])


def is_recorded() -> bool:
    """Whether somebody takes down the operators that run: ``torch.compile``, ``torch.export``, ``torch.jit.trace``.

    What is decided by the device, or kept from an earlier call, would become part of the record. Those who count
    operators by a trace, as fvcore and mmengine do, want PyTorch's own.
    """
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def _goes_through_onednn(x: Tensor) -> bool:
    if is_recorded() or x.device.type != 'cpu' or x.dtype != torch.float32 or x.numel() == 0:
        return False
    return _ONEDNN and not torch.is_autocast_enabled('cpu')


_ONEDNN = hasattr(torch.ops.mkldnn, '_linear_pointwise') and 'AVX512' in torch.backends.cpu.get_cpu_capability()


class _OneDNN(torch.autograd.Function):
    """Rows (N, C) times the transposed weight (C', C), plus a bias; the operator itself has no gradient."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, 'none', [], '')

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        to_x, to_weight, to_bias = ctx.needs_input_grad
        return (
            linear(grad, weight.t(), None) if to_x else None,
            _product_over_rows(grad, x) if to_weight else None,
            grad.sum(0) if to_bias else None,
        )


def _product_over_rows(a: Tensor, b: Tensor) -> Tensor:
    """``a.t() @ b`` of (N, C') and (N, C); the operator copies its first argument, so that is the narrow one."""
    return linear(a.t(), b.t(), None) if a.shape[1] <= b.shape[1] else linear(b.t(), a.t(), None).t()


def by_rows(function: Callable[[Tensor], Tensor], x: Tensor, width: int) -> Tensor:
    """``function(x)`` for tokens (B, N, C) that it treats one by one.

    Without gradients on a CPU, as many at once as fit in cache: that lowers the peak of memory, where nothing is kept.
    ``width`` are the channels of the widest tensor inside.
    """
    if x.device.type != 'cpu' or torch.is_grad_enabled() or is_recorded():
        return function(x)
    rows = max(1, PIECE // (x.shape[0] * width * x.element_size()))
    pieces = x.split(rows, dim=1)
    return function(x) if len(pieces) == 1 else torch.cat([function(piece) for piece in pieces], dim=1)


PIECE = 2**23
"""Bytes of the widest tensor in a piece."""
