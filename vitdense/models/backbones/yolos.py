"""YOLOS: a plain Vision Transformer that detects with tokens of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from vitdense.models.layers.attention import SelfAttention, attention
from vitdense.models.layers.init import learned
from vitdense.models.layers.layout import pad_to_minimum
from vitdense.models.layers.mlp import Mlp
from vitdense.models.layers.pos_embed import resize_positions
from vitdense.registry import MODELS

from .vit import ViT, ViTArch, ViTBlock

FIXED = dict(class_token=True, dist_token=False, reg_tokens=0, pos_embed='all', rel_pos=None, window_size=0)
"""Columns of :class:`ViTArch` that a sequence of class, patch and detection tokens leaves no choice for."""


@dataclass(frozen=True)
class YOLOSArch(ViTArch):
    """A row of the table of the paper, and the sizes of the position tables of the release.

    Attributes:
        det_tokens: number of detection tokens Q.
        mid_pos_embed: whether positions are added after each block but the last, too.
    """

    pos_resize: str = 'bicubic'
    det_tokens: int = 100
    mid_pos_embed: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for column, value in FIXED.items():
            if getattr(self, column) != value:
                raise ValueError(f'YOLOS needs {column}={value!r}, got {getattr(self, column)!r}')
        if self.det_tokens < 1:
            raise ValueError(f'det_tokens must be at least 1, got {self.det_tokens}')


class ReadoutBlock(ViTBlock):
    """The last block: of all that it would return, only the detection tokens are computed."""

    def __init__(
        self, channels: int, attn: SelfAttention, mlp: Mlp, drop_path: float, layer_scale: float | None, det_tokens: int
    ) -> None:
        super().__init__(channels, attn, mlp, drop_path, layer_scale)
        self.det_tokens = det_tokens

    def forward(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """Tokens (B, N, C) to the last of them (B, Q, C)."""
        q, k, v = self.attn.project(self.norm1(x), hw).chunk(3, dim=2)
        mixed = attention(q[:, -self.det_tokens :], k, v, self.attn.num_heads, self.attn.dropout)
        x = x[:, -self.det_tokens :] + self.drop_path(self.ls1(self.attn.proj_drop(self.attn.proj(mixed))))
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))


@MODELS.register_module()
class YOLOS(ViT):
    """You Only Look at One Sequence (Fang et al., NeurIPS 2021, https://arxiv.org/abs/2106.00666).

    Detection tokens follow the class token and the patches through all blocks; :class:`YOLOSHead` reads what becomes
    of them. Parameters are named as in the official release. As there, what is left of an image beyond whole patches is
    cut off (an image smaller than a patch is padded with zeros), and padding is not masked: the detections in an image
    depend on the padding of its batch.

    It keeps the contract of backbones, with these exceptions: the only output has tokens instead of a map, so that no
    neck fits; ``out_channels`` are the channels of these tokens, ``out_strides`` those of the patches. All blocks are
    built and the last norm is always there. ``mid_pos_embed`` is one parameter for many blocks; it counts as part of
    the last block that it follows, so that it is frozen with that one.

    Args:
        arch: row of ``ARCHS``.
        frozen_stages: -1 for none, 0 patch embedding, tokens and first position table, s these and the first s blocks.
        init_cfg: initialisation config, e.g. ``dict(type='vitdense.Pretrained', checkpoint='deit_tiny')``. ImageNet
            weights have no ``mid_pos_embed``, a quarter of all values, which starts afresh.
        kwargs: as of :class:`ViT`, without ``out_indices`` and ``final_norm``; columns of :class:`YOLOSArch` to replace
            among them, e.g. ``det_tokens=300``.

    Raises:
        ValueError: unknown ``arch`` or blocks, or columns that do not fit each other.
        TypeError: an argument that does not exist.
    """

    arch: YOLOSArch
    cls_token: nn.Parameter
    pos_embed: nn.Parameter
    ARCHS = {
        'tiny': YOLOSArch(embed_dims=192, depth=12, num_heads=3, img_size=(800, 1328), mid_pos_embed=False),
        'small': YOLOSArch(embed_dims=384, depth=12, num_heads=6, img_size=(512, 864)),
        'small_dwr': YOLOSArch(embed_dims=330, depth=14, num_heads=6, img_size=(512, 864)),
        'base': YOLOSArch(embed_dims=768, depth=12, num_heads=12, img_size=(800, 1344)),
    }

    def __init__(self, arch: str, **kwargs) -> None:
        for name in ('out_indices', 'final_norm'):
            if name in kwargs:
                raise TypeError(f'YOLOS: unknown argument {name!r}: leave it out, it returns the last tokens, normed')
        super().__init__(arch, final_norm=True, **kwargs)

    def build_tokens(self) -> None:
        row, channels = self.arch, self.arch.embed_dims
        places = 1 + self.grid[0] * self.grid[1] + row.det_tokens
        self.cls_token = learned(1, 1, channels)
        self.det_token = learned(1, row.det_tokens, channels)
        self.pos_embed = learned(1, places, channels)
        between = row.depth - 1 if row.mid_pos_embed else 0
        self.mid_pos_embed = learned(between, 1, places, channels) if between else None

    def block_type(self, index: int) -> Callable[..., ViTBlock]:
        last = index == self.arch.depth - 1
        return partial(ReadoutBlock, det_tokens=self.arch.det_tokens) if last else ViTBlock

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """Image (B, 3, H, W) to the detection tokens (B, Q, C)."""
        patches, hw = self.patch_embed(pad_to_minimum(image, self.arch.patch_size))
        x = self.place(patches, hw)
        between = () if self.mid_pos_embed is None else self.fit(self.mid_pos_embed[:, 0], hw).unbind()
        for block, positions in zip_longest(self.blocks, between):
            x = self.run_block(block, x, hw)
            if positions is not None:
                x = x + positions
        return (self.norm(x),)

    def place(self, patches: Tensor, hw: tuple[int, int]) -> Tensor:
        """Tokens (B, N, C) of patches to (B, 1 + N + Q, C), the other tokens around, with position embeddings."""
        first, last = (t.expand(patches.shape[0], -1, -1) for t in (self.cls_token, self.det_token))
        x = torch.cat([first, patches, last], dim=1) + self.fit(self.pos_embed, hw)
        return self.patch_embed.drop(x)

    def fit(self, tables: Tensor, hw: tuple[int, int]) -> Tensor:
        """Position tables (T, 1 + N + Q, C) for a grid ``hw`` of patches; the class and detection entries stay."""
        grid, det = tables.tensor_split([-self.arch.det_tokens], dim=1)
        return torch.cat([resize_positions(grid, 1, self.grid, hw, self.arch.pos_resize), det], dim=1)

    def table_args(self, name: str) -> dict[str, Any]:
        if name != 'pos_embed':
            return {}
        det = self.pos_embed[:, -self.arch.det_tokens :].detach()
        return dict(hw=self.grid, rule=self.arch.pos_resize, det=det)

    def layer_id(self, name: str) -> int:
        if name == 'mid_pos_embed':
            return self.num_layers - 1
        return 0 if name == 'det_token' else super().layer_id(name)
