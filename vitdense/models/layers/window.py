"""Attention within windows: cutting maps into them, relative position bias, shift mask (Swin, section 3.2)."""

import math
from collections.abc import Callable, Iterator
from functools import lru_cache, partial, wraps
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from .fast.linear import is_recorded
from .fast.pieces import PIECE, in_pieces
from .sizes import ceil_div

Result = TypeVar('Result')
Pair = tuple[int, int]
"""Rows and columns."""
Shift = tuple[int | Tensor, int | Tensor]
"""Those by which a map is rolled; tensors () where they depend on its size in an export."""

MASKED = -100.0
"""Added to the logits of two tokens that a cyclic shift has brought together."""


def cached(function: Callable[..., Result]) -> Callable[..., Result]:
    """Keep the last results of ``function``, tensors that autograd can use also if made in inference mode.

    A recorded model computes them itself (:func:`is_recorded`).
    """
    keep = lru_cache(maxsize=32)(torch.inference_mode(False)(function))

    @wraps(keep)
    def call(*args) -> Result:
        return function(*args) if is_recorded() else keep(*args)

    return call


class Windows(NamedTuple):
    """How B maps of N tokens are cut into W windows of n tokens; windows with the same shift mask are neighbours.

    Attributes:
        size: rows and columns of a window.
        batch: B.
        tokens: token of each window position (W * n,), any where there is none.
        blank: the window positions without a token, beyond the bottom and the right edge.
        positions: window position of each token (B * N,).
        counts: windows by shift mask: those inside, at the right edge, at the bottom, in the corner.
        masks: additive shift mask of each (len(counts), 1, n, n), None without shift.
    """

    size: Pair
    batch: int
    tokens: Tensor
    blank: Tensor
    positions: Tensor
    counts: tuple[int, ...]
    masks: Tensor | None

    def split(self, x: Tensor) -> Tensor:
        """Tokens (B, N, C) to windows (W, n, C), zero where there is no token."""
        x = _Take.apply(x.flatten(0, 1), self.tokens, self.blank, self.positions, None)
        return x.unflatten(0, (-1, math.prod(self.size)))

    def join(self, x: Tensor) -> Tensor:
        """Windows (W, n, C) to tokens (B, N, C)."""
        x = _Take.apply(x.flatten(0, 1), self.positions, None, self.tokens, self.blank)
        return x.unflatten(0, (self.batch, -1))


class ExportedWindows(NamedTuple):
    """As :class:`Windows` in an export: operators that hold for maps of all sizes, and windows in row order.

    Attributes:
        size: rows and columns of a window.
        tokens: token of each window position of one map (W * n,), any where there is none.
        blank: True for the window positions without a token (W * n, 1).
        positions: window position of each token of one map (N,).
        kinds: which of four masks each window of a map has (W,).
        masks: additive masks (K, 1, n or 1, n), K = 4 with a shift, else 1; None where nothing is masked.
    """

    size: Pair
    tokens: Tensor
    blank: Tensor
    positions: Tensor
    kinds: Tensor
    masks: Tensor | None

    def split(self, x: Tensor) -> Tensor:
        """Tokens (B, N, C) to windows (B, W, n, C), zero where there is no token."""
        x = x.index_select(1, self.tokens).masked_fill(self.blank, 0)
        return x.unflatten(1, (self.kinds.shape[0], math.prod(self.size)))

    def join(self, x: Tensor) -> Tensor:
        """Windows (B, W, n, C) to tokens (B, N, C)."""
        return x.flatten(1, 2).index_select(1, self.positions)


class _Take(torch.autograd.Function):
    """Rows ``index`` of ``x``, zero at ``blank``; back by ``inverse``, as no row is taken twice."""

    @staticmethod
    def forward(ctx, x: Tensor, index: Tensor, blank: Tensor | None, inverse: Tensor, inverse_blank: Tensor | None):
        ctx.back = inverse, inverse_blank
        return _take(x, index, blank)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _take(grad, *ctx.back), None, None, None, None


def _take(x: Tensor, index: Tensor, blank: Tensor | None) -> Tensor:
    rows = x.index_select(0, index)
    return rows if blank is None else rows.index_fill_(0, blank, 0)


@cached
def cut_windows(batch: int, hw: Pair, window: Pair, shift: Pair, device: torch.device) -> Windows:
    """Windows of ``window`` tokens, the map first padded to whole windows and rolled by ``shift``."""
    height, width = hw
    rows, columns = window
    grid = torch.arange(height * width, device=device).view(hw)
    grid = F.pad(grid, (0, -width % columns, 0, -height % rows), value=-1).roll((-shift[0], -shift[1]), (0, 1))
    grid = grid.unflatten(1, (-1, columns)).unflatten(0, (-1, rows)).transpose(1, 2).flatten(2)  # (rows, columns, n)
    groups, masks = [grid], None
    if any(shift):
        groups = [grid[:-1, :-1], grid[:-1, -1:], grid[-1:, :-1], grid[-1:, -1:]]
        masks = shift_masks(window, shift, device)
    first = height * width * torch.arange(batch, device=device).view(-1, 1, 1)
    groups = [group.flatten(0, 1) for group in groups]
    tokens = torch.cat([torch.where(group < 0, -1, group + first).flatten(0, 1) for group in groups]).flatten()
    order = tokens.where(tokens >= 0, batch * height * width).argsort()  # blank positions last
    positions, blank = order.split((batch * height * width, len(order) - batch * height * width))
    counts = tuple(batch * len(group) for group in groups)
    return Windows(window, batch, tokens.clamp_(min=0), blank, positions, counts, masks)


def export_windows(hw: Pair, window: int, shift: Shift | None, device: torch.device) -> ExportedWindows:
    """As :func:`cut_windows`, with square windows and, if any, one shift mask for each window."""
    size = window, window
    counts = [ceil_div(side, window) for side in hw]
    last = [torch.arange(count, device=device) == count - 1 for count in counts]
    kinds = 2 * last[0].long()[:, None] + last[1].long()
    masks = None if shift is None else shift_masks(size, shift, device)
    (top, row, above), (left, column, before) = (
        _places(side, count * window, window, by, device)
        for side, count, by in zip(hw, counts, shift or (0, 0), strict=True)
    )
    blank = (top >= hw[0])[:, None, :, None] | (left >= hw[1])[:, None]  # (rows, columns, window, window)
    tokens = (top * hw[1])[:, None, :, None] + left[:, None]
    positions = ((row * counts[1])[:, None] + column) * window**2 + above[:, None] * window + before
    return ExportedWindows(
        size,
        tokens.masked_fill(blank, 0).flatten(),
        blank.flatten()[:, None],
        positions.flatten(),
        kinds.flatten(),
        masks,
    )


def _places(side: int, padded: int, window: int, shift: int | Tensor, device: torch.device) -> tuple[Tensor, ...]:
    """One side of a map in windows: the place on it of each window position (count, window), and of each place (side,)
    the window and the position in there."""
    rolled = torch.arange(padded, device=device) + shift
    rolled = rolled.where(rolled < padded, rolled - padded)
    places = torch.arange(side, device=device) - shift
    places = places.where(places >= 0, places + padded)
    return rolled.unflatten(0, (-1, window)), places // window, places % window


def shift_masks(window: Pair, shift: Shift, device: torch.device) -> Tensor:
    """Additive masks (4, 1, n, n) of the windows inside, at the right edge, at the bottom and in the corner."""
    rows, columns = (
        (torch.arange(side, device=device) >= side - by).long() for side, by in zip(window, shift, strict=True)
    )
    right, bottom = columns.repeat(window[0]), rows.repeat_interleave(window[1])  # (n,)
    regions = torch.stack([torch.zeros_like(right), right, 2 * bottom, right + 2 * bottom])
    apart = regions[:, None, :, None] != regions[:, None, None, :]
    return torch.zeros(apart.shape, device=device).masked_fill_(apart, MASKED)


@cached
def relative_position_index(window: Pair, device: torch.device) -> Tensor:
    """Row of a table of relative positions ((2H - 1) (2W - 1), M) for each pair of tokens of a window, (n * n,)."""
    height, width = window
    y, x = torch.cartesian_prod(torch.arange(height, device=device), torch.arange(width, device=device)).unbind(1)
    rows = (y[:, None] - y + height - 1) * (2 * width - 1) + x[:, None] - x + width - 1
    return rows.flatten()


def position_bias(table: Tensor, window: Pair) -> Tensor:
    """Table of relative positions ((2H - 1) (2W - 1), M) to the bias (M, n, n) of all pairs of a window (H, W)."""
    n = math.prod(window)
    return table.index_select(0, relative_position_index(window, table.device)).t().unflatten(1, (n, n)).contiguous()


def window_attention(
    qkv: Tensor, bias: Tensor, windows: Windows | ExportedWindows, scale: float, dropout: float = 0.0
) -> Tensor:
    """Attention within each window.

    Args:
        qkv: queries, keys and values (W, n, 3, M, D), or (B, W, n, 3, M, D) of exported windows.
        bias: relative position bias (M, n, n).
        windows: their order and shift masks.
        scale: factor of the products of queries and keys.
        dropout: of the attention weights.

    Returns:
        (W, n, C), or (B, W, n, C); C = M * D.
    """
    masks = bias[None] if windows.masks is None else bias + windows.masks.to(bias.dtype)
    if isinstance(windows, ExportedWindows):
        return _attend_all(qkv, masks.to(qkv.dtype), windows.kinds, scale, dropout).flatten(3)
    if qkv.device.type == 'cpu' and not dropout and not is_recorded():
        pieces = list(_pieces(windows.counts, qkv.shape[3] * qkv.shape[1] ** 2 * qkv.element_size()))
        return in_pieces(partial(_weigh, scale), qkv[:, :, 0].shape, pieces, qkv, masks).flatten(2)
    parts = zip(qkv.split(windows.counts), masks.to(qkv.dtype), strict=True)
    return torch.cat([_attend(part, mask, scale, dropout) for part, mask in parts if len(part)]).flatten(2)


def _attend(qkv: Tensor, mask: Tensor, scale: float, dropout: float) -> Tensor:
    q, k, v = qkv.transpose(1, 3).unbind(2)  # (W, M, n, D)
    return F.scaled_dot_product_attention(q, k, v, mask[None], dropout, scale=scale).transpose(1, 2)


def _attend_all(qkv: Tensor, masks: Tensor, kinds: Tensor, scale: float, dropout: float) -> Tensor:
    """Windows (B, W, n, 3, M, D) to (B, W, n, M, D), each with that of the ``masks`` (K, M, n, n) which ``kinds`` says.

    With several masks the windows of a map take part as its heads: no mask has to be repeated for the images.
    """
    sizes = qkv.shape[:2], (qkv.shape[1], qkv.shape[4])
    first = int(masks.shape[0] > 1)
    q, k, v = qkv.permute(3, 0, 1, 4, 2, 5).flatten(1 + first, 2 + first).unbind()  # (B * W, M, n, D), (B, W * M, n, D)
    if first:
        masks = masks.index_select(0, kinds).flatten(0, 1)[None]
    x = F.scaled_dot_product_attention(q, k, v, masks, dropout, scale=scale)
    return x.unflatten(first, sizes[first]).transpose(2, 3)


def _pieces(counts: tuple[int, ...], size: int) -> Iterator[tuple[slice, int]]:
    """Windows to compute at once, of ``size`` bytes of weights each, and the number of their mask."""
    most, start = max(1, PIECE // size), 0
    for kind, count in enumerate(counts):
        for first in range(start, start + count, most):
            yield slice(first, min(first + most, start + count)), kind
        start += count


def _weigh(scale: float, qkv: Tensor, mask: Tensor) -> Tensor:
    q, k, v = qkv.transpose(1, 3).unbind(2)  # (W, M, n, D)
    weights = (q * scale @ k.transpose(2, 3) + mask).softmax(3)
    return (weights.to(v.dtype) @ v).transpose(1, 2)
