"""The neck of a config that gets another backbone: its channels, and a pyramid where all maps have the same stride."""

import math
from collections.abc import Sequence

from mmengine.config import ConfigDict

from vitdense.config.channels import ChannelField, channel_fields, first_neck
from vitdense.models.backbones.base import STRIDES
from vitdense.registry import bare_type

SCALES = {'SimpleFeaturePyramid': 'scale_factors', 'Feature2Pyramid': 'rescales', 'MultiLevelNeck': 'scales'}
"""Necks that make a pyramid of maps of one stride, and their argument for the scales of its levels."""


def remove_pyramid(model: ConfigDict, strides: Sequence[int]) -> tuple[list[int], list[str]]:
    """Take off a neck of ``SCALES``, so that ``model`` is as if its backbone returned a pyramid.

    A ``SimpleFeaturePyramid`` becomes an FPN whose ``in_channels`` are still to be set.

    Args:
        model: config of a model, changed in place.
        strides: those of its backbone's maps.

    Returns:
        The strides of the maps that the rest of the model reads, and what changed.
    """
    place, neck = first_neck(model)
    kind = bare_type(neck)
    if kind not in SCALES:
        return list(strides), []
    read = [round(strides[-1] / scale) for scale in neck.get(SCALES[kind], (4, 2, 1, 0.5))]
    if kind == 'SimpleFeaturePyramid':
        kept = dict(out_channels=neck.get('out_channels', 256), num_outs=neck.get('num_outs', 5))
        fpn = ConfigDict(type='FPN', in_channels=[neck.in_channels] * len(read), **kept)
        _put_first(model, [fpn], drop=1)
        return read, [f'model.{place}: {kind} -> FPN']
    _put_first(model, [], drop=1)
    return read, [f'model.{place}: {kind} removed']


def fit_column(model: ConfigDict, strides: Sequence[int], channels: int, stride: int) -> tuple[int, list[str]]:
    """Fit ``model`` to a backbone whose maps all have the same ``channels`` and ``stride``.

    Where its neck, or one of its heads, reads maps of several strides, a pyramid goes between: ViTDet's in place of an
    FPN and before any other neck and the heads of detectors, that of BEiT and MAE before the heads of mmseg.

    Args:
        model: config of a model, changed in place.
        strides: those of the maps that it reads now.
        channels: channels of the new maps.
        stride: their stride.

    Returns:
        How many maps the backbone has to return, and what changed.

    Raises:
        ValueError: no pyramid over the new maps has the ``strides``.
    """
    place, neck = first_neck(model)
    fields = list(channel_fields(model))
    if not any(len(read) > 1 for read in _strides_read(fields, strides)):
        return len(strides), set_channels(fields, [channels] * len(strides))
    if bare_type(neck) == 'FPN':
        last = neck.get('end_level', -1) % len(strides)
        levels = _simple_pyramid(strides[neck.get('start_level', 0) : last + 1], channels, stride)
        levels.update(out_channels=neck.out_channels, num_outs=neck.num_outs)
        _put_first(model, [levels], drop=1)
        return 1, [f'model.{place}: FPN -> {_describe(levels, stride)}']
    if not neck and 'decode_head' in model and len(strides) == len(STRIDES) and stride in (8, 16):
        pyramid = ConfigDict(type='Feature2Pyramid', embed_dim=channels, rescales=[stride / s for s in STRIDES])
        norms = [field.node.norm_cfg for field in fields if field.node.get('norm_cfg')]
        if norms:
            pyramid.norm_cfg = norms[0]
        count, width = len(strides), channels
    else:
        pyramid = _simple_pyramid(strides, channels, stride)
        count, width = 1, pyramid.out_channels
    changes = set_channels(fields, [width] * len(strides))
    _put_first(model, [pyramid], drop=0)
    return count, [f'model.neck: {_describe(pyramid, stride)} put in before {bare_type(neck) or "the heads"}', *changes]


def set_channels(fields: Sequence[ChannelField], channels: Sequence[int]) -> list[str]:
    """State the ``channels`` of a backbone's maps in all ``fields``; returns what changed."""
    changes = []
    for field in fields:
        before = field.stated
        field.set(channels)
        changes.append(f'model.{field.path}: {before} -> {field.stated}')
    return changes


def _strides_read(fields: Sequence[ChannelField], strides: Sequence[int]) -> list[set[int]]:
    """The strides that each node of a config reads."""
    read: dict[int, set[int]] = {}
    for field in fields:
        read.setdefault(id(field.node), set()).update(field.expected(strides))
    return list(read.values())


def _simple_pyramid(strides: Sequence[int], channels: int, stride: int) -> ConfigDict:
    """ViTDet's pyramid with levels of ``strides``."""
    doubling = [strides[0] * 2**level for level in range(len(strides))]
    if list(strides) != doubling or not math.log2(stride / strides[0]).is_integer():
        raise ValueError(
            f'--backbone: the model reads maps of strides {list(strides)}, which cannot be made of maps of stride '
            f'{stride}: they have to double from one to the next, and to be {stride} times powers of two'
        )
    return ConfigDict(
        type='vitdense.SimpleFeaturePyramid',
        in_channels=channels,
        out_channels=256,
        scale_factors=[stride / s for s in strides],
        num_outs=len(strides),
    )


def _describe(pyramid: ConfigDict, stride: int) -> str:
    kind = bare_type(pyramid)
    return f'{kind} of strides {[round(stride / scale) for scale in pyramid[SCALES[kind]]]}'


def _put_first(model: ConfigDict, necks: list[ConfigDict], drop: int) -> None:
    """Put ``necks`` before those of ``model``, of which the first ``drop`` are left out."""
    old = model.get('neck') or []
    old = list(old) if isinstance(old, list | tuple) else [old]
    new = [*necks, *old[drop:]]
    if new:
        model.neck = new if len(new) > 1 else new[0]
    else:
        model.pop('neck', None)
