"""The contract that all backbones keep, and what they share to keep it."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, ClassVar

from mmengine.model import BaseModule
from torch import Tensor, nn

from vitdense.models.layers.fast.light import WithCp, checked, run_block
from vitdense.models.layers.init import init_linear_

from .arguments import ELSEWHERE, PYRAMIDS_ELSEWHERE, resolve_arch

STRIDES = (4, 8, 16, 32)
"""Pixels of the image per step in the maps of a pyramid."""


class Backbone(BaseModule):
    """Turns an image into a pyramid of maps.

    A subclass calls this constructor with the depths, channels and strides of its stages, builds its layers, and calls
    :meth:`freeze` last.

    Attributes:
        out_channels: channels of the returned maps.
        out_strides: pixels of the image per step in the returned maps.
        out_indices: the stages whose maps are returned, counted from 0. Later stages are not built.
        depths: blocks of each stage that is built.

    Args:
        depths: blocks of each stage.
        channels: channels of each stage.
        strides: stride of each stage.
        out_indices: stages to return, increasing.
        frozen_stages: -1 trains everything, 0 freezes the stem, s > 0 the stem and the stages 1 to s: their parameters
            get no gradient and their modules stay in evaluation mode.
        with_cp: what the backward pass computes again instead of keeping it: ``False`` nothing, ``'light'`` the first
            product of feed-forward networks and the projections of attention, ``True`` whole blocks.
        init_cfg: mmengine's initialisation config.

    Raises:
        ValueError: stages or a ``with_cp`` that do not exist.
    """

    ARCHS: ClassVar[Mapping[str, Any]]
    """Variants of the network, by name."""

    ELSEWHERE: ClassVar[Mapping[str, str]] = ELSEWHERE
    """Arguments of such a network in mmdet, mmseg or timm, and what there is instead of them."""

    needs_all_stages: ClassVar[bool] = False
    """Whether each map depends on all stages, so that all of them are built."""

    def __init__(
        self,
        depths: Sequence[int],
        channels: Sequence[int],
        strides: Sequence[int],
        out_indices: Sequence[int],
        frozen_stages: int = -1,
        with_cp: WithCp = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        stages = tuple(out_indices) if isinstance(out_indices, Sequence) else ()
        if not stages or list(stages) != sorted(set(stages) & set(range(len(depths)))):
            last = len(depths) - 1
            raise ValueError(
                f'{type(self).__name__}: out_indices must be increasing stages out of 0 to {last}, got {out_indices}; '
                f'the last alone is ({last},)'
            )
        self.out_indices = out_indices = stages
        self.depths = tuple(depths if self.needs_all_stages else depths[: out_indices[-1] + 1])
        self.out_channels = tuple(channels[i] for i in out_indices)
        self.out_strides = tuple(strides[i] for i in out_indices)
        if not -1 <= frozen_stages <= len(self.depths):
            raise ValueError(f'frozen_stages must be from -1 to {len(self.depths)}, got {frozen_stages}')
        self.frozen_stages = frozen_stages
        self.with_cp = checked(with_cp)

    @abstractmethod
    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Image (B, 3, H, W), normalised, of any size, to one map (B, C, H', W') for each of ``out_indices``."""

    @abstractmethod
    def layer_id(self, name: str) -> int:
        """Depth of the parameter ``name``: 0 for the stem, n for the n-th block (layer decay and freezing ask it).

        That of one added to a pretrained network is ``num_layers + 1``, which has the full learning rate.
        """

    def leaves_out(self, name: str) -> bool:
        """Whether the whole network has a parameter ``name`` which the arguments of this one leave out."""
        return False

    def table_args(self, name: str) -> dict[str, Any]:
        """What resizing a foreign table to the parameter ``name`` needs beyond its shape (see ``Family.tables``)."""
        return {}

    @property
    def num_layers(self) -> int:
        """Number of blocks, the largest :meth:`layer_id` of a parameter of the pretrained network."""
        return sum(self.depths)

    def freeze(self) -> None:
        """Stop the gradients of the stem and the first ``frozen_stages`` stages."""
        if self.frozen_stages < 0:
            return
        last = sum(self.depths[: self.frozen_stages])
        for name, parameter in self.named_parameters():
            if self.layer_id(name) <= last:
                parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> 'Backbone':
        """Set the training mode; frozen modules stay in evaluation mode."""
        super().train(mode)
        if mode and self.frozen_stages >= 0:
            for module in self.children():
                _keep_frozen_in_eval(module)
        return self

    def run_block(self, block: nn.Module, *inputs: Any) -> Tensor:
        """``block(*inputs)``, tokens and what else it takes, as ``with_cp`` says."""
        return run_block(block, self.with_cp if self.training else False, *inputs)

    @staticmethod
    def drop_path_rates(rate: float, depths: Sequence[int]) -> list[list[float]]:
        """Rates that grow linearly from 0 at the first block to ``rate`` at the last one, by stage and block.

        Raises:
            ValueError: ``rate`` is not in [0, 1).
        """
        if not 0.0 <= rate < 1.0:
            raise ValueError(f'drop_path_rate must be in [0, 1), got {rate}')
        total = sum(depths)
        rates = [rate * i / max(total - 1, 1) for i in range(total)]
        starts = accumulate(depths, initial=0)
        return [rates[start : start + depth] for start, depth in zip(starts, depths, strict=False)]


def _keep_frozen_in_eval(module: nn.Module) -> None:
    parameters = list(module.parameters())
    if parameters and not any(p.requires_grad for p in parameters):
        module.eval()
        return
    for child in module.children():
        _keep_frozen_in_eval(child)


class Pyramid(Backbone):
    """Backbones of four stages, as PVT and Swin are, with the arguments that they share.

    Args:
        arch: row of ``ARCHS``.
        out_indices: stages to return; later ones are not built.
        frozen_stages: -1 for none, 0 the first patch embedding, s the stages 1 to s (see :class:`Backbone`).
        with_cp: ``False``, ``'light'`` or ``True`` (see :class:`Backbone`).
        in_channels: channels of the image.
        drop_rate: dropout of projections, feed-forward layers, and position (PVT) or patch embeddings (Swin).
        attn_drop_rate: dropout of attention weights.
        init_cfg: initialisation config, e.g. ``dict(type='vitdense.Pretrained', checkpoint='pvt_small')``.
        overrides: columns of ``ARCHS`` to replace, e.g. ``drop_path_rate=0.3``.

    Raises:
        ValueError: unknown ``arch`` or stages, or an arch whose columns do not fit each other.
        TypeError: an argument that does not exist.
    """

    arch: Any
    ELSEWHERE = ELSEWHERE | PYRAMIDS_ELSEWHERE

    def __init__(
        self,
        arch: str,
        *,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        with_cp: WithCp = False,
        in_channels: int = 3,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        init_cfg: dict | list[dict] | None = None,
        **overrides,
    ) -> None:
        self.arch = row = resolve_arch(type(self), arch, overrides)
        super().__init__(row.depths, row.channels, STRIDES, out_indices, frozen_stages, with_cp, init_cfg)
        self.drop_rate, self.attn_drop_rate = drop_rate, attn_drop_rate
        self.build(in_channels, self.drop_path_rates(row.drop_path_rate, row.depths))
        self.apply(init_linear_)
        self.freeze()

    @abstractmethod
    def build(self, in_channels: int, rates: list[list[float]]) -> None:
        """Make the layers, with the stochastic depth of each block by stage."""

    def attention_args(self, stage: int) -> dict:
        """What every attention of ``stage`` takes."""
        return dict(
            channels=self.arch.channels[stage],
            num_heads=self.arch.num_heads[stage],
            qkv_bias=self.arch.qkv_bias,
            attn_drop=self.attn_drop_rate,
            proj_drop=self.drop_rate,
        )
