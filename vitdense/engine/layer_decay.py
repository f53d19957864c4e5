"""Learning rates that fall with depth, weight decay where it is meant, and no more parameter groups than that needs."""

import re
from collections.abc import Iterator
from typing import Any

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from vitdense.models.backbones import Backbone
from vitdense.names import unknown
from vitdense.registry import OPTIM_WRAPPER_CONSTRUCTORS

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)

TABLES = re.compile(
    r'(^|\.)(\w*pos_embed\d*|\w+_tokens?|rel_pos_[hw]|relative_position_bias_table|cpb_mlp|logit_scale)(\.|$)'
)
"""Absolute and relative positions, learned tokens, and SwinV2's relative positions by a network, by their names in the
backbones of this package and in those of mmdet, mmseg and timm."""

CUSTOM = ('lr_mult', 'decay_mult')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Layer-wise learning rates and weight decay as BEiT has them (https://arxiv.org/abs/2106.08254), in few groups.

    The learning rate of a backbone parameter is multiplied by ``decay_rate ** (num_layers + 1 - layer_id)``, both told
    by the :class:`Backbone`; for all others the factor is 1. Norms, biases, other vectors, position tables and learned
    tokens have no weight decay unless ``paramwise_cfg`` says so. Parameters with equal settings make one group, where
    mmengine makes a group of each; frozen ones are in none, shared ones in one.

    ``paramwise_cfg`` has mmengine's names and ``decay_rate``, see :attr:`DEFAULTS`. Of the ``custom_keys`` that occur
    in a parameter's name, the longest that states ``lr_mult`` replaces ``bias_lr_mult``, and the longest that states
    ``decay_mult`` replaces the other rules about weight decay. (mmengine reads what the longest key leaves out as 1, so
    that a key for learning rates turns the decay of norms on.) Layer decay multiplies ``lr_mult``.

    Args:
        optim_wrapper_cfg: config of the wrapper; its ``optimizer`` states ``lr`` and ``weight_decay``.
        paramwise_cfg: settings to replace.

    Raises:
        ValueError: unknown settings, a ``decay_rate`` outside (0, 1], an optimizer without ``lr`` or ``weight_decay``,
            or layer decay for a model without a :class:`Backbone`.
    """

    DEFAULTS = {
        'decay_rate': 1.0,
        'norm_decay_mult': 0.0,
        'bias_decay_mult': 0.0,
        'flat_decay_mult': 0.0,
        'dwconv_decay_mult': 1.0,
        'bias_lr_mult': 1.0,
        'custom_keys': {},
    }

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        paramwise_cfg = dict(paramwise_cfg or {})
        for key in paramwise_cfg:
            if key not in self.DEFAULTS:
                raise ValueError(unknown('key of optim_wrapper.paramwise_cfg', key, self.DEFAULTS))
        for name, settings in paramwise_cfg.get('custom_keys', {}).items():
            for key in settings:
                if key not in CUSTOM:
                    raise ValueError(unknown(f'key of optim_wrapper.paramwise_cfg.custom_keys.{name}', key, CUSTOM))
        missing = [key for key in ('lr', 'weight_decay') if optim_wrapper_cfg['optimizer'].get(key) is None]
        if missing:
            raise ValueError(f'optim_wrapper.optimizer must state {" and ".join(missing)}, which the groups multiply')
        super().__init__(optim_wrapper_cfg, {**self.DEFAULTS, **paramwise_cfg})
        self.decay_rate = self.paramwise_cfg['decay_rate']
        if not 0 < self.decay_rate <= 1:
            raise ValueError(f'optim_wrapper.paramwise_cfg.decay_rate must be in (0, 1], got {self.decay_rate}')

    def add_params(self, params: list[dict], module: nn.Module, **_: Any) -> None:
        """Append the groups of the model ``module`` to ``params``."""
        backbones = {name: child for name, child in module.named_modules() if isinstance(child, Backbone)}
        if not backbones and self.decay_rate < 1:
            found = type(getattr(module, 'backbone', None)).__name__
            raise ValueError(
                f'optim_wrapper.paramwise_cfg.decay_rate is {self.decay_rate}, but model.backbone is {found}, '
                'which does not tell the depth of its layers. Use a backbone of vitdense (or another subclass of its '
                'Backbone), or set decay_rate=1'
            )
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter, owner in _trainable(module):
            lr = self.base_lr * self._lr_mult(name, owner) * self._layer_mult(name, backbones)
            weight_decay = self.base_wd * self._decay_mult(name, parameter, owner)
            groups.setdefault((lr, weight_decay), []).append(parameter)
        for lr, weight_decay in sorted(groups, reverse=True):  # mmengine logs the learning rate of the first group
            group = groups[lr, weight_decay]
            params.append(dict(params=group, lr=lr, weight_decay=weight_decay))
            print_log(f'{len(group)} parameters with lr {lr:.3g} and weight decay {weight_decay:.3g}', 'current')

    def _layer_mult(self, name: str, backbones: dict[str, Backbone]) -> float:
        for prefix, backbone in backbones.items():
            start = f'{prefix}.' if prefix else ''
            if name.startswith(start):
                return self.decay_rate ** (backbone.num_layers + 1 - backbone.layer_id(name.removeprefix(start)))
        return 1.0

    def _lr_mult(self, name: str, owner: nn.Module) -> float:
        is_bias = name.endswith('bias') and not isinstance(owner, NORMS)
        return self._custom(name, 'lr_mult', self.paramwise_cfg['bias_lr_mult'] if is_bias else 1.0)

    def _decay_mult(self, name: str, parameter: nn.Parameter, owner: nn.Module) -> float:
        rules = self.paramwise_cfg
        if isinstance(owner, NORMS):
            rule = rules['norm_decay_mult']
        elif name.endswith('bias'):
            rule = rules['bias_decay_mult']
        elif TABLES.search(name):
            rule = 0.0
        elif isinstance(owner, nn.Conv2d) and owner.in_channels == owner.groups:
            rule = rules['dwconv_decay_mult']
        else:
            rule = rules['flat_decay_mult'] if parameter.ndim == 1 else 1.0
        return self._custom(name, 'decay_mult', rule)

    def _custom(self, name: str, setting: str, default: float) -> float:
        """What the longest custom key in ``name`` that has ``setting`` says; the first in the alphabet among equals."""
        custom = self.paramwise_cfg['custom_keys']
        keys = [key for key in custom if key in name and setting in custom[key]]
        return custom[min(keys, key=lambda key: (-len(key), key))][setting] if keys else default


def _trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Module]]:
    """Parameters that have gradients, each once: name, parameter, and the module that owns it."""
    owners = {f'{name}.' if name else '': module for name, module in model.named_modules()}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield name, parameter, owners[name[: name.rfind('.') + 1]]
