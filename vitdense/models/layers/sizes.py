"""Sizes: integers in a run, and symbols in a model that is recorded for images of many sizes."""

import torch
from torch.fx.experimental.symbolic_shapes import statically_known_true


def is_known(condition: bool | torch.SymBool | torch.Tensor) -> bool:
    """Whether a condition on sizes holds, in a recorded model for all images that it may get.

    To ask a symbol by ``if`` would confine the record to images for which the answer is the same.
    """
    if isinstance(condition, bool):
        return condition
    return isinstance(condition, torch.SymBool) and statically_known_true(condition)  # sizes of a trace are tensors


def ceil_div(size: int, by: int) -> int:
    """``size / by``, rounded up. ONNX has no floor of negative quotients, so that ``-(-size // by)`` is another one."""
    return (size + by - 1) // by


def is_same(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether two tuples of as many sizes are equal, in the sense of :func:`is_known`."""
    return all(is_known(x == y) for x, y in zip(a, b, strict=True))
