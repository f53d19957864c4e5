"""Plain and windowed Vision Transformer (ViT, DeiT, MAE, BEiT, ViTDet)."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from timm.layers import LayerScale
from torch import Tensor, nn
from torch.nn import functional as F

from vitdense.models.layers.attention import SelfAttention
from vitdense.models.layers.block import Block
from vitdense.models.layers.fast.light import WithCp, recomputed
from vitdense.models.layers.init import init_linear_, learned
from vitdense.models.layers.layout import pad_to_multiple, to_map
from vitdense.models.layers.mlp import Mlp
from vitdense.models.layers.patch_embed import PatchEmbed
from vitdense.models.layers.pos_embed import RESIZE_RULES, resize_positions
from vitdense.models.layers.rel_pos import DecomposedRelPosAttention, RelPosBiasAttention
from vitdense.names import unknown
from vitdense.registry import MODELS

from .arguments import COLUMNS_ELSEWHERE, ELSEWHERE, resolve_arch
from .base import Backbone

CHOICES = {
    'pos_embed': ('all', 'patches', None),
    'pos_resize': tuple(RESIZE_RULES),
    'rel_pos': ('decomposed', 'bias_table', None),
}


@dataclass(frozen=True)
class ViTArch:
    """A row of the table of the paper, and what later papers vary.

    Attributes:
        embed_dims: channels.
        depth: number of blocks.
        num_heads: attention heads.
        mlp_ratio: hidden channels of the feed-forward network, relative to ``embed_dims``.
        patch_size: pixels of a patch a side.
        img_size: pixels of the images for which position tables are stored, a side or (height, width).
        class_token: whether there is a class token.
        dist_token: whether the distillation token of DeiT follows it.
        reg_tokens: number of register tokens after these.
        pos_embed: what ``pos_embed`` has an entry for: 'all' tokens, only the 'patches', or None without such a table.
        pos_resize: how the table is resized to other images, as the release of the weights does: 'bicubic_antialias'
            (timm), 'bicubic' (DeiT, MAE, ViTDet) or 'bilinear' (SETR).
        rel_pos: relative positions: 'decomposed' (ViTDet), 'bias_table' (BEiT, whose ``qkv`` has no bias for keys) or
            None.
        rel_pos_size: as ``img_size``, for the tables of 'decomposed' in global blocks; those of windows have the size
            of a window. ``img_size`` by default.
        window_size: patches of a window a side; 0 for attention over the whole image.
        global_blocks: blocks without windows, counted from 0.
        layer_scale: initial LayerScale, or None for blocks without.
        qkv_bias: whether queries, keys and values have a bias.
        drop_path_rate: stochastic depth of the last block; it grows linearly from 0 at the first.
    """

    embed_dims: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0
    patch_size: int = 16
    img_size: int | tuple[int, int] = 224
    class_token: bool = True
    dist_token: bool = False
    reg_tokens: int = 0
    pos_embed: str | None = 'all'
    pos_resize: str = 'bicubic_antialias'
    rel_pos: str | None = None
    rel_pos_size: int | tuple[int, int] | None = None
    window_size: int = 0
    global_blocks: tuple[int, ...] = ()
    layer_scale: float | None = None
    qkv_bias: bool = True
    drop_path_rate: float = 0.0

    def __post_init__(self) -> None:
        for column, valid in CHOICES.items():
            if getattr(self, column) not in valid:
                raise ValueError(unknown(column, getattr(self, column), map(str, valid)))
        if self.embed_dims % self.num_heads:
            raise ValueError(f'embed_dims {self.embed_dims} must be a multiple of num_heads {self.num_heads}')
        for column in ('img_size', 'rel_pos_size'):
            self.grid_of(column)
        if self.dist_token and not self.class_token:
            raise ValueError('dist_token=True needs class_token=True, which it follows')
        if self.rel_pos_size and self.rel_pos != 'decomposed':
            raise ValueError(f"rel_pos_size needs rel_pos='decomposed', got rel_pos={self.rel_pos!r}")
        if self.rel_pos == 'bias_table' and (not self.class_token or self.num_prefix > 1 or self.window_size):
            raise ValueError(
                "rel_pos='bias_table' has entries for one class token and the patches of the whole image: it needs "
                'class_token=True and no dist_token, reg_tokens or window_size'
            )
        if self.num_prefix and (self.window_size or self.rel_pos == 'decomposed'):
            cause = f'window_size={self.window_size}' if self.window_size else "rel_pos='decomposed'"
            raise ValueError(f'{cause} needs class_token=False, dist_token=False and reg_tokens=0')
        if self.global_blocks and not self.window_size:
            raise ValueError(f'global_blocks {self.global_blocks} need a window_size for the others')
        if not set(self.global_blocks) <= set(range(self.depth)):
            raise ValueError(f'global_blocks must be blocks out of 0 to {self.depth - 1}, got {self.global_blocks}')

    @property
    def num_prefix(self) -> int:
        """Number of tokens before the patches."""
        return self.class_token + self.dist_token + self.reg_tokens

    def grid_of(self, column: str) -> tuple[int, int]:
        """Patches a side of an image of the size in ``column``."""
        size = getattr(self, column) or self.img_size
        height, width = (size, size) if isinstance(size, int) else size
        if min(height, width) < 1 or height % self.patch_size or width % self.patch_size:
            raise ValueError(f'{column} must be multiples of patch_size {self.patch_size}, got {size}')
        return height // self.patch_size, width // self.patch_size


class ViTBlock(Block):
    """A block whose branches end in LayerScale, unless that is None."""

    attn: SelfAttention

    def __init__(
        self, channels: int, attn: SelfAttention, mlp: Mlp, drop_path: float, layer_scale: float | None
    ) -> None:
        super().__init__(channels, attn, mlp, drop_path)
        self.ls1, self.ls2 = (
            nn.Identity() if layer_scale is None else LayerScale(channels, layer_scale) for _ in range(2)
        )

    def forward(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        # in two steps, so that what the norm returns is gone before the attention
        mixed = recomputed(lambda x: self.attn.project(self.norm1(x), hw), lambda qkv: self.attn.mix(qkv, hw), x)
        x = x + self.drop_path(self.ls1(mixed))
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))


@MODELS.register_module()
class ViT(Backbone):
    """Vision Transformer (Dosovitskiy et al., ICLR 2021, https://arxiv.org/abs/2010.11929) and its descendants.

    A stage is one block, and all maps have the channels and the stride of the patches: those after the blocks
    ``out_indices`` are returned without a norm. Parameters are named as in timm. Images are padded with zeros at the
    right and the bottom to whole patches. These patches, and those of the padding of a batch, take part in attention
    over the whole image: features of an image depend on its padding.

    - DeiT (https://arxiv.org/abs/2012.12877), MAE (https://arxiv.org/abs/2111.06377): ``pos_resize='bicubic'``, and for
      distilled models ``dist_token=True``.
    - BEiT (https://arxiv.org/abs/2106.08254): ``pos_embed=None, rel_pos='bias_table', layer_scale=0.1``.
    - ViTDet (https://arxiv.org/abs/2203.16527): ``class_token=False, pos_resize='bicubic', rel_pos='decomposed',
      rel_pos_size=1024, window_size=14, global_blocks=(2, 5, 8, 11)``.

    Args:
        arch: row of ``ARCHS``.
        out_indices: blocks whose maps are returned, counted from 0; later ones are not built. Default: the last.
        final_norm: whether the last map passes a LayerNorm ``norm``.
        frozen_stages: -1 for none, 0 patch embedding, tokens and position table, s these and the first s blocks.
        with_cp: ``False``, ``'light'`` or ``True`` (see :class:`Backbone`).
        in_channels: channels of the image.
        drop_rate: dropout of projections, feed-forward layers and position embeddings.
        attn_drop_rate: dropout of attention weights.
        init_cfg: initialisation config, e.g. ``dict(type='vitdense.Pretrained', checkpoint='deit_small')``.
        overrides: columns of :class:`ViTArch` to replace, e.g. ``patch_size=14``.

    Raises:
        ValueError: unknown ``arch`` or blocks, or columns that do not fit each other.
        TypeError: an argument that does not exist.
    """

    arch: ViTArch
    attention = SelfAttention
    ELSEWHERE = ELSEWHERE | COLUMNS_ELSEWHERE
    ARCHS = {
        'tiny': ViTArch(embed_dims=192, depth=12, num_heads=3),
        'small': ViTArch(embed_dims=384, depth=12, num_heads=6),
        'base': ViTArch(embed_dims=768, depth=12, num_heads=12),
        'large': ViTArch(embed_dims=1024, depth=24, num_heads=16),
        'huge': ViTArch(embed_dims=1280, depth=32, num_heads=16),
    }

    def __init__(
        self,
        arch: str,
        *,
        out_indices: Sequence[int] | None = None,
        final_norm: bool = False,
        frozen_stages: int = -1,
        with_cp: WithCp = False,
        in_channels: int = 3,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        init_cfg: dict | list[dict] | None = None,
        **overrides,
    ) -> None:
        self.arch = row = resolve_arch(type(self), arch, overrides)
        stages = self.stages()
        depths, channels, strides = zip(*stages, strict=True)
        out_indices = (len(stages) - 1,) if out_indices is None else out_indices
        super().__init__(depths, channels, strides, out_indices, frozen_stages, with_cp, init_cfg)
        self.patch_embed = self.build_patch_embed(in_channels, drop_rate)
        self.grid = row.grid_of('img_size')
        self.prefix_positions = row.num_prefix if row.pos_embed == 'all' else 0
        rates = self.drop_path_rates(row.drop_path_rate, [1] * row.depth)
        built = max(row.depth - sum(depths[len(self.depths) :]), 0)
        self.blocks = nn.ModuleList(self.build_block(i, rates[i][0], drop_rate, attn_drop_rate) for i in range(built))
        if built:
            self.build_tokens()
        self.norm = nn.LayerNorm(row.embed_dims, eps=1e-6) if final_norm and built else nn.Identity()
        self.apply(init_linear_)
        self.freeze()

    def stages(self) -> list[tuple[int, int, int]]:
        """Blocks, channels and stride of each stage."""
        return [(1, self.arch.embed_dims, self.arch.patch_size)] * self.arch.depth

    def build_patch_embed(self, in_channels: int, drop: float) -> PatchEmbed:
        """What turns the image into tokens."""
        size = self.arch.patch_size
        return PatchEmbed(in_channels, self.arch.embed_dims, size, size, drop, norm=False)

    def build_tokens(self) -> None:
        """The tokens beside the patches, and the table of positions."""
        row, channels = self.arch, self.arch.embed_dims
        self.cls_token = learned(1, 1, channels) if row.class_token else None
        self.dist_token = learned(1, 1, channels) if row.dist_token else None
        self.reg_token = learned(1, row.reg_tokens, channels) if row.reg_tokens else None
        places = self.prefix_positions + self.grid[0] * self.grid[1]
        self.pos_embed = learned(1, places, channels) if row.pos_embed else None

    def block_type(self, index: int) -> Callable[..., ViTBlock]:
        """What makes block ``index`` of its parts."""
        return ViTBlock

    def build_block(self, index: int, drop_path: float, drop: float, attn_drop: float) -> ViTBlock:
        """Block ``index``."""
        row = self.arch
        window = 0 if index in row.global_blocks else row.window_size
        attention: dict[str | None, Callable[..., SelfAttention]] = {
            None: self.attention,
            'decomposed': partial(
                DecomposedRelPosAttention, grid=(window, window) if window else row.grid_of('rel_pos_size')
            ),
            'bias_table': partial(RelPosBiasAttention, grid=self.grid),
        }
        attn = attention[row.rel_pos](
            row.embed_dims,
            row.num_heads,
            qkv_bias=row.qkv_bias,
            attn_drop=attn_drop,
            proj_drop=drop,
            window_size=window,
        )
        mlp = Mlp(row.embed_dims, int(row.embed_dims * row.mlp_ratio), drop)
        return self.block_type(index)(row.embed_dims, attn, mlp, drop_path, row.layer_scale)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Image (B, 3, H, W) to one map (B, C, H/p, W/p), rounded up, for each of ``out_indices``; p = patch size."""
        return tuple(self.transform(*self.patch_embed(pad_to_multiple(image, self.arch.patch_size))))

    def transform(self, patches: Tensor, hw: tuple[int, int]) -> list[Tensor]:
        """Tokens (B, N, C) of patches to the maps (B, C, H, W) after the blocks that ``out_indices`` name."""
        x = self.place(patches, hw)
        maps = []
        for index, block in enumerate(self.blocks, start=len(self.depths) - len(self.blocks)):
            x = self.run_block(block, x, hw)
            if index in self.out_indices:
                last = index == self.out_indices[-1]
                patches = x[:, self.arch.num_prefix :]
                maps.append(to_map(self.norm(patches) if last else patches, hw).contiguous())
        return maps

    def place(self, patches: Tensor, hw: tuple[int, int]) -> Tensor:
        """Tokens (B, N, C) of patches to (B, P + N, C), the prefix tokens in front, with position embeddings."""
        prefix = [t for t in (self.cls_token, self.dist_token, self.reg_token) if t is not None]
        x = torch.cat([*(t.expand(patches.shape[0], -1, -1) for t in prefix), patches], dim=1)
        if self.pos_embed is not None:
            table = resize_positions(self.pos_embed, self.prefix_positions, self.grid, hw, self.arch.pos_resize)
            x = x + F.pad(table, (0, 0, x.shape[1] - table.shape[1], 0))
        return self.patch_embed.drop(x)

    def table_args(self, name: str) -> dict[str, Any]:
        if name == 'pos_embed':
            return dict(prefix=self.prefix_positions, hw=self.grid, rule=self.arch.pos_resize)
        return dict(hw=self.grid) if name.endswith('relative_position_bias_table') else {}

    def leaves_out(self, name: str) -> bool:
        found = re.match(r'blocks\.(\d+)\.|(?:cls_token|dist_token|reg_token|norm)\b', name)
        if not found or found[1] is None:
            return found is not None
        return len(self.blocks) <= int(found[1]) < self.arch.depth

    def layer_id(self, name: str) -> int:
        if re.match(r'(patch_embed|cls_token|dist_token|reg_token|pos_embed)\b', name):
            return 0
        found = re.match(r'blocks\.(\d+)\.|norm\.', name)
        if not found:
            raise ValueError(f'{type(self).__name__} has no parameter {name!r}')
        return int(found[1]) + 1 if found[1] else len(self.blocks)
