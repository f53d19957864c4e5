"""Less memory in training: products whose results make most of it are computed again in the backward pass."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from .linear import is_recorded

WithCp = bool | Literal['light']
"""How much is computed again: nothing, what :func:`recomputed` says, or whole blocks."""

_light = ContextVar('light', default=False)


def checked(with_cp: Any) -> WithCp:
    """A value of the argument ``with_cp``.

    Raises:
        ValueError: it is another one.
    """
    if with_cp is True or with_cp is False or with_cp == 'light':
        return with_cp
    raise ValueError(f"with_cp: expected False, 'light' or True, found {with_cp!r}")


def run_block(block: nn.Module, with_cp: WithCp, *inputs: Any) -> Tensor:
    """``block(*inputs)``; what ``with_cp`` says is computed again in the backward pass.

    Compiled models choose themselves what they keep: there ``'light'`` is ``False``.
    """
    if not with_cp or not torch.is_grad_enabled():
        return block(*inputs)
    if with_cp is True:
        return checkpoint(block, *inputs, use_reentrant=False)
    if is_recorded():
        return block(*inputs)
    token = _light.set(True)
    try:
        return block(*inputs)
    finally:
        _light.reset(token)


def recomputed(first: Callable[[Tensor], Tensor], then: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``then(first(x))``; within a block that :func:`run_block` runs lightly, ``first`` is computed again.

    The backward pass keeps ``x``, and what ``then`` keeps beside the result of ``first`` and views of it. Unlike a
    checkpoint of both, ``then`` is computed once. Random numbers and autocast are the same both times.
    """
    if not _light.get() or not torch.is_grad_enabled():
        return then(first(x))
    again = _Again(first, x)
    with saved_tensors_hooks(again.pack_inner, again.unpack_inner):
        result = first(x)
    again.storage = result.untyped_storage().data_ptr()
    with saved_tensors_hooks(again.pack_outer, again.unpack_outer):
        return then(result)


class _Again:
    """What the backward pass of a function asks for, computed when the first of it is asked for."""

    storage: int

    def __init__(self, function: Callable[[Tensor], Tensor], x: Tensor) -> None:
        self.function, self.x = function, x
        self.state = _RandomState(x.device)
        kind = x.device.type
        self.autocast = kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
        self.inner: dict[int, Tensor] = {}
        self.result: Tensor | None = None
        self.count = self.views = self.views_left = 0

    def pack_inner(self, tensor: Tensor) -> int:
        self.count += 1
        return self.count - 1

    def unpack_inner(self, number: int) -> Tensor:
        if number not in self.inner:
            self.compute()
        return self.inner.pop(number)

    def pack_outer(self, tensor: Tensor) -> Tensor | tuple[Any, ...]:
        if tensor.untyped_storage().data_ptr() != self.storage:
            return tensor
        self.views += 1
        self.views_left += 1
        return tensor.shape, tensor.stride(), tensor.storage_offset()

    def unpack_outer(self, packed: Tensor | tuple[Any, ...]) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        if self.result is None:
            self.compute()
        assert self.result is not None
        view = self.result.as_strided(*packed)
        self.views_left -= 1
        if not self.views_left:
            self.result, self.views_left = None, self.views
        return view

    def compute(self) -> None:
        numbers = itertools.count()

        def keep(tensor: Tensor) -> None:
            self.inner[next(numbers)] = tensor.detach()

        kind, dtype, enabled = self.autocast
        with (
            torch.enable_grad(),
            torch.autocast(kind, dtype, enabled),
            self.state.again(),
            saved_tensors_hooks(keep, lambda packed: packed),
        ):
            self.result = self.function(self.x.detach().requires_grad_(self.x.requires_grad)).detach()


class _RandomState:
    """That of the generators of a device and of the CPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.cpu = torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state(device) if device.type == 'cuda' else None

    @contextmanager
    def again(self) -> Iterator[None]:
        """Draw the same numbers once more."""
        with torch.random.fork_rng([] if self.cuda is None else [self.device], device_type='cuda'):
            torch.set_rng_state(self.cpu)
            if self.cuda is not None:
                torch.cuda.set_rng_state(self.cuda, self.device)
            yield
