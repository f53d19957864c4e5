"""The neck of a config that gets another backbone: its channels, and a pyramid where all maps have the same stride."""

import math
from collections.abc import Mapping, Sequence

from mmengine.config import ConfigDict

from vitdense.config.channels import ChannelField, channel_fields, first_neck
from vitdense.config.swap.levels import maps_read, matching_stages, positions_read, renumber
from vitdense.models.backbones.base import STRIDES, Backbone
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


def fit_pyramid(
    model: ConfigDict, strides: Sequence[int], old_indices: Sequence[int] | None, backbone: Backbone
) -> tuple[tuple[int, ...], list[str]]:
    """Fit ``model`` to a backbone whose maps have growing strides.

    Args:
        model: config of a model, changed in place.
        strides: those of the maps that its backbone returned.
        old_indices: stages of that backbone, where its config says them.
        backbone: the new one, with all its maps.

    Returns:
        The stages of the new backbone that are read, and what changed.

    Raises:
        ValueError: it cannot be told which stages stand for the old maps.
    """
    read = maps_read(list(channel_fields(model)), len(strides))
    stages = matching_stages(strides, read, old_indices, backbone.out_strides)
    _check_cascade(model, strides, {level: backbone.out_strides[stage] for level, stage in stages.items()})
    indices = tuple(sorted(set(stages.values())))
    return indices, _fit_levels(
        model,
        strides,
        {level: indices.index(stage) for level, stage in stages.items()},
        [backbone.out_channels[i] for i in indices],
        [backbone.out_strides[i] for i in indices],
        indices,
    )


def _check_cascade(model: ConfigDict, old: Sequence[int], new: Mapping[int, int]) -> None:
    """Heads that refine each other's results, as OCRNet's, read maps of one size."""
    fields = [field for field in channel_fields(model) if field.path.startswith('decode_head[')]
    levels = sorted({level for field in fields if len(field.stated) == 1 for level in field.positions(len(old))})
    if len({old[level] for level in levels}) == 1 < len({new[level] for level in levels}):
        raise ValueError(
            f'--backbone: the heads of model.decode_head need maps of one stride, and the maps {levels} of the new '
            f'backbone have strides {[new[level] for level in levels]}'
        )


def fit_column(model: ConfigDict, strides: Sequence[int], backbone: Backbone) -> tuple[tuple[int, ...], list[str]]:
    """Fit ``model`` to a backbone whose maps all have the same channels and stride.

    Where its neck, or one of its heads, reads maps of several strides, a pyramid goes between: ViTDet's in place of an
    FPN and before any other neck and the heads of detectors, that of BEiT and MAE before the heads of mmseg.

    Args:
        model: config of a model, changed in place.
        strides: those of the maps that it reads now.
        backbone: the new one.

    Returns:
        The blocks of the new backbone whose maps are read, and what changed.

    Raises:
        ValueError: no pyramid over the new maps has the ``strides``.
    """
    channels, stride = backbone.out_channels[0], backbone.out_strides[0]
    place, neck = first_neck(model)
    fields = list(channel_fields(model))
    read, count = maps_read(fields, len(strides)), len(strides)
    every = {level: level for level in range(count)}
    if not any(len(one) > 1 for one in _strides_read(fields, strides)):
        indices = tuple(_spread(backbone, count)[level] for level in read)
        positions = {level: i for i, level in enumerate(read)}
        return indices, _fit_levels(model, strides, positions, [channels] * len(read), [stride] * len(read), indices)
    if bare_type(neck) == 'FPN':
        last = neck.get('end_level', -1) % count
        levels = _simple_pyramid(strides[neck.get('start_level', 0) : last + 1], channels, stride)
        levels.update(out_channels=neck.out_channels, num_outs=neck.num_outs)
        _put_first(model, [levels], drop=1)
        return _spread(backbone, 1), [f'model.{place}: FPN -> {_describe(levels, stride)}']
    if not neck and 'decode_head' in model and count == len(STRIDES) and stride in (8, 16):
        pyramid = ConfigDict(type='Feature2Pyramid', embed_dim=channels, rescales=[stride / s for s in STRIDES])
        norms = [field.node.norm_cfg for field in fields if field.node.get('norm_cfg')]
        if norms:
            pyramid.norm_cfg = norms[0]
        changes = _fit_levels(model, strides, every, [channels] * count, STRIDES)
        indices = _spread(backbone, count)
    else:
        levels_read = [strides[level] for level in read]
        pyramid = _simple_pyramid(levels_read, channels, stride)
        positions = {level: i for i, level in enumerate(read)}
        changes = _fit_levels(model, strides, positions, [pyramid.out_channels] * len(read), levels_read)
        indices = _spread(backbone, 1)
    _put_first(model, [pyramid], drop=0)
    before = bare_type(neck) or 'the heads'
    return indices, [f'model.neck: {_describe(pyramid, stride)} put in before {before}', *changes]


def _spread(backbone: Backbone, count: int) -> tuple[int, ...]:
    """The last blocks of ``count`` equal parts of a backbone."""
    return tuple(len(backbone.depths) * (i + 1) // count - 1 for i in range(count))


def _fit_levels(
    model: ConfigDict,
    old_strides: Sequence[int],
    positions: Mapping[int, int],
    channels: Sequence[int],
    strides: Sequence[int],
    stages: Sequence[int] = (),
) -> list[str]:
    """Make ``model`` read maps of ``channels`` and ``strides`` at the ``positions`` given by their old ones."""
    count = len(old_strides)
    before = {field.path: (field.stated, positions_read(field, count)) for field in channel_fields(model)}
    changes = renumber(model, positions, count)
    for field in channel_fields(model):
        stated, levels = before[field.path]
        field.set(field.expected(channels))
        change = f'model.{field.path}: {stated} -> {field.stated}'
        if stages:
            change += f', stages {[stages[positions[level]] for level in levels]}'
        old, new = [old_strides[level] for level in levels], [strides[positions[level]] for level in levels]
        if old != new:
            change += f', strides {old} -> {new}'
        changes.append(change)
    return changes


def _strides_read(fields: Sequence[ChannelField], strides: Sequence[int]) -> list[set[int]]:
    """The strides that each node of a config reads."""
    read: dict[int, set[int]] = {}
    for field in fields:
        read.setdefault(id(field.node), set()).update(strides[i] for i in positions_read(field, len(strides)))
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
