"""``--backbone NAME``: another backbone for a config of mmdet or mmseg, with all that has to change with it."""

from collections.abc import Sequence

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import DefaultScope, init_default_scope

from vitdense.checkpoint.layouts import RELEASES, family_of
from vitdense.config.channels import channel_fields, check_channels
from vitdense.config.swap.choices import BACKBONES, LAYER_DECAY, WEIGHT_DECAY
from vitdense.config.swap.names import check_name
from vitdense.config.swap.neck import fit_column, remove_pyramid, set_channels
from vitdense.models.backbones import Backbone
from vitdense.registry import bare_type


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
    check_name(name)
    model = cfg.get('model', {})
    if 'backbone' not in model:
        raise ValueError('--backbone: the config has no model.backbone to swap')
    if model.get('roi_head', {}).get('shared_head'):
        raise ValueError('--backbone: model.roi_head.shared_head is a part of the old backbone and cannot be kept')
    old = ConfigDict(model.backbone)
    channels, strides = measure(cfg, old)
    check_channels(model, channels)
    strides, changes = remove_pyramid(model, strides)
    fields = list(channel_fields(model))
    if not fields:
        raise ValueError('--backbone: found no in_channels in the neck or the heads, so they cannot be made to fit')
    choice = BACKBONES[name]
    with torch.device('meta'):
        module = choice.backbone(**choice.arguments)
    if _is_column(module):
        count, fitted = fit_column(model, strides, module.out_channels[0], module.out_strides[0])
        indices = tuple(len(module.depths) * (i + 1) // count - 1 for i in range(count))
    else:
        indices = matching_stages(strides, old.get('out_indices'), module.out_strides)
        fitted = set_channels(fields, [module.out_channels[i] for i in indices])
    model.backbone = ConfigDict(type=f'vitdense.{choice.backbone.__name__}', **choice.arguments)
    if indices != module.out_indices:
        model.backbone.out_indices = indices
    source = 'random weights'
    if pretrained and choice.release:
        model.backbone.init_cfg = dict(type='vitdense.Pretrained', checkpoint=choice.release)
        source = f'ImageNet weights {RELEASES[choice.release]}'
    if old.get('with_cp'):
        model.backbone.with_cp = True
    if 'pretrained' in model:  # mmseg's way of naming the weights of the old backbone
        model.pretrained = None
    changes += [f'model.backbone: {old.type} -> {name} (stages {list(indices)}, {source})', *fitted]
    changes += _fit_normalisation(model, choice.normalisation)
    changes += _fit_optimizer(cfg, module)
    return changes


def _is_column(backbone: Backbone) -> bool:
    """Do all stages have the same stride?"""
    return len(set(backbone.out_strides)) == 1


def measure(cfg: Config, backbone: ConfigDict) -> tuple[list[int], list[int]]:
    """Channels and strides of the maps that a backbone config returns, found by running it on an empty image."""
    scope = DefaultScope.get_current_instance()
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    try:
        weightless = ConfigDict({k: v for k, v in backbone.items() if k not in ('init_cfg', 'pretrained')})
        module = ROOT_MODELS.build(weightless)
    finally:
        if scope is not None:
            init_default_scope(scope.scope_name)
    if isinstance(module, Backbone):
        return list(module.out_channels), list(module.out_strides)
    module.eval()  # not chained: mmdet's train() returns None
    size = backbone.get('img_size', 128)  # mmseg's MAE and BEiT take no other
    height, width = (size, size) if isinstance(size, int) else size
    with torch.no_grad():
        maps = module(torch.zeros(1, backbone.get('in_channels', 3), height, width))
    return [m.shape[1] for m in maps], [round(width / m.shape[3]) for m in maps]


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


def _fit_normalisation(model: ConfigDict, normalisation: dict) -> list[str]:
    node = model.get('data_preprocessor')
    if node is None or all(node.get(key) == value for key, value in normalisation.items()):
        return []
    node.update(normalisation)
    node.pop('rgb_to_bgr', None)
    mean, std = normalisation['mean'], normalisation['std']
    return [f'model.data_preprocessor: mean {mean} and std {std} in RGB, as the weights expect']


def _fit_optimizer(cfg: Config, backbone: Backbone) -> list[str]:
    """AdamW as published for the backbone; an Adam of the config keeps its rates, and a rate of the backbone stays."""
    wrapper = cfg.optim_wrapper
    changes = []
    if 'Adam' not in bare_type(wrapper.optimizer):
        adamw = ConfigDict(type='AdamW', lr=1e-4, weight_decay=WEIGHT_DECAY[family_of(type(backbone))])
        rates = f'(lr {adamw.lr:g}, weight decay {adamw.weight_decay:g})'
        changes.append(f'optim_wrapper.optimizer: {bare_type(wrapper.optimizer)} -> AdamW {rates}')
        wrapper.optimizer = adamw
    usual = 0.01 if 'AdamW' in bare_type(wrapper.optimizer) else 0.0  # as in PyTorch
    wrapper.optimizer.setdefault('weight_decay', usual)
    rules = wrapper.get('paramwise_cfg') or ConfigDict()
    ours = 'vitdense.LayerDecayOptimWrapperConstructor'
    if wrapper.get('constructor') not in (None, ours):
        changes.append(
            f'optim_wrapper.constructor: {wrapper.constructor} removed, it knows the layers of the old backbone'
        )
        rules = ConfigDict()
    kept = ConfigDict({key: rules[key] for key in ('bias_lr_mult', 'custom_keys') if key in rules})
    custom = kept.get('custom_keys', {})
    if custom.get('backbone', {}).get('decay_mult') == 1:  # said of a ResNet, which has nothing to leave out
        del custom.backbone['decay_mult']
    if _is_column(backbone) and 'backbone' not in custom:
        kept.decay_rate = LAYER_DECAY[min(LAYER_DECAY, key=lambda depth: abs(depth - backbone.num_layers))]
        changes.append(f'optim_wrapper.paramwise_cfg: learning rates of the backbone fall by {kept.decay_rate} a block')
    wrapper.constructor = ours
    wrapper.paramwise_cfg = kept
    return [*changes, 'optim_wrapper.paramwise_cfg: no weight decay on norms, biases and position embeddings']
