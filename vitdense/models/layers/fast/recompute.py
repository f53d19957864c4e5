"""Less memory in training: what is cheap is computed again in the backward pass instead of kept."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def recompute(function: Callable[[Tensor], Tensor], x: Tensor, random: bool = False) -> Tensor:
    """``function(x)``, of which the backward pass keeps ``x`` alone.

    Worth it for cheap functions that end in a matrix product (norm and linear layer, activation and linear layer): the
    product itself is not repeated, as the recomputation stops with the last tensor that the backward pass asks for.
    ``random`` says that ``function`` draws random numbers, which then are the same both times. Compiled models choose
    themselves what they keep.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return function(x)
    return checkpoint(function, x, use_reentrant=False, preserve_rng_state=random)
