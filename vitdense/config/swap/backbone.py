"""``--backbone NAME``: another backbone for a config of mmdet or mmseg, with all that has to change with it."""

import copy

import torch
from mmengine.config import Config, ConfigDict

from vitdense.checkpoint.layouts import RELEASES, family_of
from vitdense.config.channels import channel_fields, first_neck, misfits
from vitdense.config.swap.choices import BACKBONES, LAYER_DECAY, WEIGHT_DECAY
from vitdense.config.swap.measure import measure
from vitdense.config.swap.names import check_name
from vitdense.config.swap.neck import fit_column, fit_pyramid, remove_pyramid
from vitdense.config.swap.trial import idle_parameters
from vitdense.models.backbones import Backbone
from vitdense.names import listed
from vitdense.registry import bare_type

INSEPARABLE = {
    'RFP': 'runs copies of the old backbone of its own (rfp_backbone)',
    'SSDNeck': 'gives the maps of the old backbone to the heads as they are, with the channels of all in one list',
}
"""Necks that are made for one backbone, and why."""


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
    check_swappable(model)
    before, old = copy.deepcopy(cfg), ConfigDict(model.backbone)
    channels, strides = measure(cfg, old)
    for where, found, expected in misfits(model, channels):
        raise ValueError(f'--backbone: how the model reads its maps cannot be told: {where} is {found}, not {expected}')
    strides, changes = remove_pyramid(model, strides)
    fields = list(channel_fields(model))
    if not fields:
        raise ValueError('--backbone: found no in_channels in the neck or the heads, so they cannot be made to fit')
    choice = BACKBONES[name]
    with torch.device('meta'):
        module = choice.backbone(**choice.arguments)
    if _is_column(module):
        indices, fitted = fit_column(model, strides, module)
    else:
        indices, fitted = fit_pyramid(model, strides, old.get('out_indices'), module)
    model.backbone = ConfigDict(type=f'vitdense.{choice.backbone.__name__}', **choice.arguments)
    if indices != module.out_indices:
        model.backbone.out_indices = indices
    source = 'random weights'
    if pretrained and choice.release:
        model.backbone.init_cfg = dict(type='vitdense.Pretrained', checkpoint=choice.release)
        source = f'ImageNet weights {RELEASES[choice.release]}'
    if old.get('with_cp'):
        model.backbone.with_cp = old.with_cp
    if 'pretrained' in model:  # mmseg's way of naming the weights of the old backbone
        model.pretrained = None
    changes += [f'model.backbone: {bare_type(old)} -> {name} (stages {list(indices)}, {source})', *fitted]
    changes += _fit_normalisation(model, choice.normalisation)
    changes += _fit_optimizer(cfg, module)
    idle = idle_parameters(cfg, before)
    if idle and not cfg.get('find_unused_parameters'):
        cfg.find_unused_parameters = True
        changes.append(f'find_unused_parameters: True, as nothing reads what comes of {listed(idle, 2)}')
    return changes


def check_swappable(model: ConfigDict) -> None:
    """Has a model a backbone, and nothing else that belongs to it?

    Raises:
        ValueError: it has none, or another part belongs to it; the message says which.
    """
    if 'backbone' not in model:
        within = [
            f'model.{key}.backbone' for key, part in model.items() if isinstance(part, dict) and 'backbone' in part
        ]
        only = f', only {" and ".join(within)} of a model within it' if within else ''
        raise ValueError(f'--backbone: the config has no model.backbone to swap{only}')
    if model.get('roi_head', {}).get('shared_head'):
        raise ValueError('--backbone: model.roi_head.shared_head is a part of the old backbone and cannot be kept')
    place, neck = first_neck(model)
    if reason := INSEPARABLE.get(bare_type(neck)):
        raise ValueError(f'--backbone: model.{place}, a {bare_type(neck)}, {reason}')


def _is_column(backbone: Backbone) -> bool:
    """Do all stages have the same stride?"""
    return len(set(backbone.out_strides)) == 1


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
