"""Self-attention with relative positions."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import SelfAttention, attention, merge_heads, split_heads
from .fast.linear import is_recorded
from .fast.pieces import PIECE, in_pieces
from .pos_embed import resize_grid
from .precision import widened
from .sizes import is_known, is_same


def by_offset(table: Tensor, dim: int) -> Tensor:
    """Spread the 2n - 1 offsets along ``dim`` of a table: entry i of that dim and j of a new last one is i - j."""
    size = (table.shape[dim] + 1) // 2
    if is_recorded():  # ONNX cannot unfold by a symbol
        places = torch.arange(size, device=table.device)
        index = places[:, None] - places + size - 1
        return table.index_select(dim, index.flatten()).unflatten(dim, (size, size)).movedim(dim + 1, -1)
    return table.unfold(dim, size, 1).flip(-1)


class DecomposedRelPosAttention(SelfAttention):
    """Adds to each logit the products of its query with a row of ``rel_pos_h`` and one of ``rel_pos_w``.

    The rows belong to the vertical and the horizontal offset of query and key (MViTv2, section 4.1; ViTDet). The
    query is not scaled. The tables (2H - 1, D) and (2W - 1, D) are resized linearly to maps of another size.

    No N x N bias is made. CPUs attend a few rows of queries at a time. Elsewhere the products of a query with all
    vertical and all horizontal offsets are appended to it as H + W channels, and to a key as many which are 1 at its
    row and at its column. Values get as many zeros, because the fused kernels want one width.
    """

    def __init__(self, channels: int, num_heads: int, grid: tuple[int, int], **kwargs) -> None:
        super().__init__(channels, num_heads, **kwargs)
        width = channels // num_heads
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * grid[0] - 1, width))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * grid[1] - 1, width))

    def attend(self, qkv: Tensor, hw: tuple[int, int]) -> Tensor:
        q, k, v = (split_heads(x, self.num_heads) for x in qkv.chunk(3, dim=2))  # (B, M, N, D)
        width = q.shape[-1]
        vertical, horizontal = (
            by_offset(resize_linear(table, 2 * side - 1) * width**0.5, 0).to(q.dtype)  # (side, D, side)
            for table, side in zip((self.rel_pos_h, self.rel_pos_w), hw, strict=True)
        )
        grid = q.unflatten(2, hw)
        rows = torch.einsum('bmhwd,hdk->bmhwk', grid, vertical)
        columns = torch.einsum('bmhwd,wdk->bmhwk', grid, horizontal)
        if q.device.type == 'cpu' and not self.dropout and not is_recorded():
            x = attend_rows(grid, rows, columns, k, v)
        else:
            x = attend_wide(grid, rows, columns, k, v, self.dropout)
        return merge_heads(x)


def attend_wide(q: Tensor, rows: Tensor, columns: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
    """Queries (B, M, H, W, D), their products with vertical (B, M, H, W, H) and with horizontal offsets
    (B, M, H, W, W), keys and values (B, M, N, D) to mixed values (B, M, N, D)."""
    hw, width = (q.shape[2], q.shape[3]), q.shape[4]
    padding = -sum(hw) % 8  # fused kernels of GPUs want multiples of 8
    q = torch.cat([q, rows, columns, rows.new_zeros(*rows.shape[:-1], padding)], dim=-1).flatten(2, 3)
    k = torch.cat([k, F.pad(one_hot_places(hw, k), (0, padding)).expand(*k.shape[:2], -1, -1)], dim=-1)
    v = F.pad(v, (0, sum(hw) + padding))
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=width**-0.5)[..., :width]


def attend_rows(q: Tensor, rows: Tensor, columns: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """As :func:`attend_wide` without dropout, some rows of queries of one head, or some heads, at a time."""
    height, width = q.shape[2:4]
    most = max(1, PIECE // (width * height * width * q.element_size()))  # rows
    spans = [slice(top, top + most) for top in range(0, height, most)]
    several = most // height
    heads = [slice(m, m + several) for m in range(0, q.shape[1], several)] if several > 1 else range(q.shape[1])
    pieces = [((b, some, span),) * 3 + ((b, some),) * 2 for b in range(len(q)) for some in heads for span in spans]
    return in_pieces(_weigh, q.shape, pieces, q, rows, columns, k, v).flatten(2, 3)


def _weigh(q: Tensor, rows: Tensor, columns: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scale = q.shape[-1] ** -0.5
    logits = (q.flatten(-3, -2) * scale @ k.mT).unflatten(-1, (rows.shape[-1], columns.shape[-1]))
    logits = logits.add(rows.flatten(-3, -2)[..., None], alpha=scale)
    logits = logits.add(columns.flatten(-3, -2)[..., None, :], alpha=scale)
    weights = logits.flatten(-2).softmax(-1)
    return (weights.to(v.dtype) @ v).unflatten(-2, q.shape[-3:-1])


class RelPosBiasAttention(SelfAttention):
    """Adds to the logits of each head a bias that depends on the offset of query and key (BEiT).

    The rows of ``relative_position_bias_table`` ((2H - 1) (2W - 1) + 3, M) are the offsets in row order, from
    (1 - H, 1 - W) up, then class token to patch, patch to class token, and class token to itself. For maps of another
    size the offsets are resized bilinearly. Queries and values have a bias, keys have none. Tokens are one class token
    and the patches.
    """

    def __init__(self, channels: int, num_heads: int, grid: tuple[int, int], qkv_bias: bool = True, **kwargs) -> None:
        super().__init__(channels, num_heads, qkv_bias=False, **kwargs)
        self.grid = grid
        self.q_bias = nn.Parameter(torch.zeros(channels)) if qkv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(channels)) if qkv_bias else None
        rows, columns = offsets(grid)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(rows * columns + 3, num_heads))

    @property
    def bias(self) -> Tensor | None:
        if self.q_bias is None or self.v_bias is None:
            return None
        return torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])

    def attend(self, qkv: Tensor, hw: tuple[int, int]) -> Tensor:
        table = resize_bias_table(self.relative_position_bias_table, self.grid, hw).to(qkv.dtype)
        patches = by_offset(by_offset(table[:-3].unflatten(0, offsets(hw)), 0), 1)  # (H, W, M, H, W)
        patches = patches.permute(2, 0, 1, 3, 4).flatten(3).flatten(1, 2)  # (M, N, N)
        to_patch, from_patch, itself = table[-3:, :, None, None]
        count = patches.shape[1]
        first = torch.cat([itself, to_patch.expand(-1, 1, count)], dim=2)
        rest = torch.cat([from_patch.expand(-1, count, 1), patches], dim=2)
        bias = torch.cat([first, rest], dim=1)
        q, k, v = qkv.chunk(3, dim=2)
        return attention(q, k, v, self.num_heads, self.dropout, bias[None])


def offsets(hw: tuple[int, int]) -> tuple[int, int]:
    """Number of vertical and horizontal offsets between two places of a map ``hw``."""
    return 2 * hw[0] - 1, 2 * hw[1] - 1


def resize_bias_table(table: Tensor, old_hw: tuple[int, int], new_hw: tuple[int, int]) -> Tensor:
    """Resize a ``relative_position_bias_table`` for maps ``old_hw`` to one for maps ``new_hw``, bilinearly."""
    if is_same(old_hw, new_hw):
        return table
    grid = resize_grid(table[None, :-3], offsets(old_hw), offsets(new_hw))[0]
    return torch.cat([grid, table[-3:]])


def resize_linear(table: Tensor, length: int) -> Tensor:
    """Resize a table (L, D) to (length, D), linearly; half types are computed in float32."""
    if is_known(table.shape[0] == length):
        return table
    return F.interpolate(widened(table).T[None], size=length, mode='linear')[0].T.to(table.dtype)


def one_hot_places(hw: tuple[int, int], like: Tensor) -> Tensor:
    """For each place of a map ``hw``, its row and its column, one-hot, (N, H + W)."""
    rows, columns = (torch.eye(side, dtype=like.dtype, device=like.device) for side in hw)
    return torch.cat([rows[:, None].expand(-1, hw[1], -1), columns.expand(hw[0], -1, -1)], dim=2).flatten(0, 1)
