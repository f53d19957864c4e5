"""``--backbone NAME``: another backbone for a config of mmdet or mmseg, with all that has to change with it."""

from collections.abc import Sequence

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import DefaultScope, init_default_scope

from vitdense.checkpoint.layouts import RELEASES
from vitdense.engine.wiring import channel_fields, check_channels
from vitdense.models.backbones import PVT, Backbone, PVTv2
from vitdense.names import unknown

BACKBONES: dict[str, tuple[type[Backbone], str]] = {
    f'{backbone.family}_{arch}': (backbone, arch) for backbone in (PVT, PVTv2) for arch in backbone.ARCHS
}
"""Names that ``--backbone`` takes."""

NORMALISATION = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
"""What the ImageNet releases were trained with."""

OPTIMIZER = dict(type='AdamW', lr=1e-4, weight_decay=1e-4)
"""Published for PVT + RetinaNet at a batch of 16."""

NO_DECAY = dict(norm_decay_mult=0.0, bias_decay_mult=0.0, custom_keys={'pos_embed': dict(decay_mult=0.0)})


def swap_backbone(cfg: Config, name: str, pretrained: bool = True) -> list[str]:
    """Change the backbone of ``cfg`` in place, and the neck's or heads' channels, normalisation and optimizer with it.

    Args:
        cfg: any config with ``model.backbone``.
        name: a key of ``BACKBONES``.
        pretrained: start from the official ImageNet checkpoint.

    Returns:
        What changed, a line each.

    Raises:
        ValueError: unknown ``name``; or a model whose use of its backbone cannot be told from its config.
    """
    if name not in BACKBONES:
        raise ValueError(unknown('--backbone', name, BACKBONES))
    model = cfg.get('model', {})
    if 'backbone' not in model:
        raise ValueError('--backbone: the config has no model.backbone to swap')
    if model.get('roi_head', {}).get('shared_head'):
        raise ValueError('--backbone: model.roi_head.shared_head is a part of the old backbone and cannot be kept')
    old = ConfigDict(model.backbone)
    channels, strides = measure(cfg, old)
    check_channels(model, channels)
    if not list(channel_fields(model)):
        raise ValueError('--backbone: found no in_channels in the neck or the heads, so they cannot be made to fit')
    backbone, arch = BACKBONES[name]
    indices = matching_stages(strides, old.get('out_indices'), backbone.STRIDES)
    new = ConfigDict(type=f'vitdense.{backbone.__name__}', arch=arch)
    if indices != tuple(range(len(backbone.STRIDES))):
        new.out_indices = indices
    if pretrained:
        new.init_cfg = dict(type='vitdense.Pretrained', checkpoint=name)
    if old.get('with_cp'):
        new.with_cp = True
    model.backbone = new
    if 'pretrained' in model:  # mmseg's way of naming the weights of the old backbone
        model.pretrained = None
    source = f'ImageNet weights {RELEASES[name]}' if pretrained else 'random weights'
    changes = [f'model.backbone: {old.type} -> {name} (stages {list(indices)}, {source})']
    changes += _fit_channels(model, [backbone.ARCHS[arch].embed_dims[i] for i in indices])
    changes += _fit_normalisation(model)
    changes += _fit_optimizer(cfg)
    return changes


def measure(cfg: Config, backbone: ConfigDict, size: int = 128) -> tuple[list[int], list[int]]:
    """Channels and strides of the maps that a backbone config returns, found by running it on an empty image."""
    scope = DefaultScope.get_current_instance()
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    try:
        weightless = ConfigDict({k: v for k, v in backbone.items() if k not in ('init_cfg', 'pretrained')})
        module = ROOT_MODELS.build(weightless)
    finally:
        if scope is not None:
            init_default_scope(scope.scope_name)
    module.eval()  # not chained: mmdet's train() returns None
    in_channels = backbone.get('in_channels', 3)
    with torch.no_grad():
        maps = module(torch.zeros(1, in_channels, size, size))
    return [m.shape[1] for m in maps], [round(size / m.shape[3]) for m in maps]


def matching_stages(strides: Sequence[int], old_indices: Sequence[int] | None, ours: Sequence[int]) -> tuple[int, ...]:
    """The stages that stand for maps of the given ``strides``.

    By stride; for dilated backbones, whose strides repeat or differ from ours, by the old ``out_indices``.

    Raises:
        ValueError: neither tells.
    """
    if set(strides) <= set(ours) and list(strides) == sorted(set(strides)):
        return tuple(ours.index(stride) for stride in strides)
    if old_indices is None and len(strides) == len(ours):
        return tuple(range(len(ours)))
    if old_indices is not None and len(old_indices) == len(strides) and max(old_indices) < len(ours):
        return tuple(old_indices)
    raise ValueError(
        f'--backbone: the old backbone returns maps of strides {list(strides)}, the new one has {list(ours)}: '
        'which to use instead cannot be told'
    )


def _fit_channels(model: ConfigDict, channels: Sequence[int]) -> list[str]:
    changes = []
    for field in channel_fields(model):
        before = field.stated
        field.set(channels)
        changes.append(f'model.{field.path}: {before} -> {field.stated}')
    return changes


def _fit_normalisation(model: ConfigDict) -> list[str]:
    node = model.get('data_preprocessor')
    if node is None or all(node.get(key) == value for key, value in NORMALISATION.items()):
        return []
    node.update(NORMALISATION)
    node.pop('rgb_to_bgr', None)
    return ['model.data_preprocessor: mean and std of ImageNet in RGB, as the weights expect']


def _fit_optimizer(cfg: Config) -> list[str]:
    """AdamW without decay on norms, biases and position embeddings; an Adam of the config keeps its rates."""
    wrapper = cfg.optim_wrapper
    changes = []
    if 'Adam' not in wrapper.optimizer.type:
        changes.append(f'optim_wrapper.optimizer: {wrapper.optimizer.type} -> AdamW {_rates(OPTIMIZER)}')
        wrapper.optimizer = ConfigDict(OPTIMIZER)
    if wrapper.pop('constructor', None):
        changes.append('optim_wrapper.constructor: removed, it knows the layers of the old backbone')
        wrapper.paramwise_cfg = {}
    rules = wrapper.get('paramwise_cfg') or ConfigDict()
    custom = {**NO_DECAY['custom_keys'], **rules.get('custom_keys', {})}
    wrapper.paramwise_cfg = ConfigDict({**rules, **NO_DECAY, 'custom_keys': custom})
    return [*changes, 'optim_wrapper.paramwise_cfg: no weight decay on norms, biases and position embeddings']


def _rates(optimizer: dict) -> str:
    return f'(lr {optimizer["lr"]:g}, weight decay {optimizer["weight_decay"]:g})'
