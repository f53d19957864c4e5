"""YOLOS: a plain Vision Transformer that detects with tokens of its own."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitdense.models.layers.attention import attention
from vitdense.models.layers.layout import pad_to_minimum
from vitdense.models.layers.linear import by_rows
from vitdense.models.layers.pos_embed import resize_positions
from vitdense.models.layers.recompute import recompute
from vitdense.registry import MODELS

from .base import resolve_arch
from .vit import ViT, ViTArch, ViTBlock, tokens

FIXED = {
    'class_token': True,
    'dist_token': False,
    'reg_tokens': 0,
    'pos_embed': 'all',
    'rel_pos': None,
    'window_size': 0,
}
"""Columns of :class:`ViTArch` that a sequence of class, patch and detection tokens leaves no choice for."""


@dataclass(frozen=True)
class YOLOSArch(ViTArch):
    """A row of the table of the paper (table 1; sizes of the position tables as released).

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
    """A block of which only the last tokens are wanted: what the others would become is not computed."""

    def __init__(self, block: ViTBlock, det_tokens: int) -> None:
        nn.Module.__init__(self)
        self._modules = block._modules
        self.det_tokens = det_tokens

    def forward(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """Tokens (B, N, C) to the last of them (B, Q, C)."""


@MODELS.register_module()
class YOLOS(ViT):
    pass
