"""Sizes: integers in a run, and symbols in a model that is recorded for images of many sizes."""

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true


def is_known(condition: bool | torch.SymBool | Tensor) -> bool:
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


def average_pool(x: Tensor, hw: tuple[int, int]) -> Tensor:
    """``F.adaptive_avg_pool2d`` of a map as two products, for ONNX pools only to sizes that divide the map."""
    rows, columns = (_shares(length, cells, x) for length, cells in zip(x.shape[2:], hw, strict=True))
    return rows @ x @ columns.t()


def _shares(length: int, cells: int, like: Tensor) -> Tensor:
    """(cells, length): cell i averages from i length / cells, rounded down, to (i + 1) length / cells, rounded up."""
    cell, place = (torch.arange(count, device=like.device) for count in (cells, length))
    first, end = cell * length // cells, ((cell + 1) * length + cells - 1) // cells
    inside = (place >= first[:, None]) & (place < end[:, None])
    return inside.to(like.dtype) / (end - first)[:, None]
