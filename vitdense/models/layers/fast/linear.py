"""Linear layers that are fast on every processor, and where all shortcuts have to stay away."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .products import by_onednn, multiply


class Linear(nn.Linear):
    """``nn.Linear`` by :func:`linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (..., C) to (..., C')."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``F.linear``, by the library that is faster here: see :mod:`.products`."""
    libraries = _by_onednn(x, weight)
    if not any(libraries):
        return F.linear(x, weight, bias)
    if x.ndim == 2:
        return _Linear.apply(x, weight, bias, libraries)
    return _Linear.apply(x.reshape(-1, x.shape[-1]), weight, bias, libraries).view(*x.shape[:-1], -1)


def is_recorded() -> bool:
    """Whether somebody takes down the operators that run: ``torch.compile``, ``torch.export``, ``torch.jit.trace``.

    What is decided by the device, or kept from an earlier call, would become part of the record. Those who count
    operators by a trace, as fvcore and mmengine do, want PyTorch's own.
    """
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def _by_onednn(x: Tensor, weight: Tensor) -> tuple[bool, bool, bool]:
    """Which of the products of a layer oneDNN computes: result, gradient of the input, gradient of the weight."""
    if is_recorded() or x.device.type != 'cpu' or x.dtype != torch.float32 or torch.is_autocast_enabled('cpu'):
        return False, False, False
    return by_onednn(x.numel() // max(x.shape[-1], 1), weight.shape[1], weight.shape[0])


class _Linear(torch.autograd.Function):
    """Rows (N, C) times the transposed weight (C', C), plus a bias; oneDNN's operator itself has no gradient."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, libraries: tuple[bool, bool, bool]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.libraries = libraries
        return multiply(x, weight, bias) if libraries[0] else F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        _, to_x, to_weight = ctx.libraries
        needed = ctx.needs_input_grad
        return (
            _product(grad, weight.t(), to_x) if needed[0] else None,
            _product_over_rows(grad, x, to_weight) if needed[1] else None,
            grad.sum(0) if needed[2] else None,
            None,
        )


def _product(a: Tensor, b: Tensor, onednn: bool) -> Tensor:
    """``a @ b.t()``, whose gradients the same library computes."""
    return _Linear.apply(a, b, None, (True, True, True)) if onednn else F.linear(a, b)


def _product_over_rows(a: Tensor, b: Tensor, onednn: bool) -> Tensor:
    """``a.t() @ b`` of (N, C') and (N, C); oneDNN's operator copies its first argument, so that is the narrow one."""
    if not onednn or a.shape[1] <= b.shape[1]:
        return _product(a.t(), b.t(), onednn)
    return _product(b.t(), a.t(), onednn).t()


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
