"""The maps of a backbone that is only known by its config."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import DefaultScope, init_default_scope
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

from vitdense.models.backbones import Backbone
from vitdense.names import brief
from vitdense.registry import bare_type

SIDE = 512
"""Pixels a side of the image that foreign backbones are run on."""


class Maps(NamedTuple):
    """Channels and strides of the maps that a backbone returns."""

    channels: list[int]
    strides: list[int]


class _Weightless(TorchFunctionMode):
    """Makes tensors without values, but for sequences of numbers, which constructors of mmdet and mmseg read."""

    CONSTRUCTORS = _device_constructors() - {torch.arange, torch.linspace}

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in self.CONSTRUCTORS and kwargs.get('device') is None:
            kwargs['device'] = 'meta'
        return func(*args, **kwargs)


@contextmanager
def scope_of(cfg: Config) -> Iterator[None]:
    """The default scope of ``cfg`` within it, and afterwards the one that was there."""
    before = DefaultScope.get_current_instance()
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    try:
        yield
    finally:
        if before is not None:
            init_default_scope(before.scope_name)


def build_weightless(node: ConfigDict) -> nn.Module:
    """A model of the current default scope on PyTorch's meta device, which takes neither memory nor time."""
    with _Weightless():
        module = ROOT_MODELS.build(node)
    return module.to('meta')


def without_weights(node: Any) -> Any:
    """A copy of a model config that loads no weights."""
    if isinstance(node, list | tuple):
        return type(node)(map(without_weights, node))
    if not isinstance(node, dict):
        return node
    kept = {key: without_weights(value) for key, value in node.items() if key != 'pretrained'}
    if isinstance(kept.get('init_cfg'), dict) and 'checkpoint' in kept['init_cfg']:
        del kept['init_cfg']
    return ConfigDict(kept)


def measure(cfg: Config, backbone: ConfigDict) -> Maps:
    """Channels and strides of the maps that a backbone config returns, found by running it on an empty image.

    Raises:
        ValueError: it cannot be built here, or returns something else than maps.
    """
    kind = bare_type(backbone)
    if not kind:
        raise ValueError("--backbone: model.backbone has no 'type', so that its maps are not known")
    try:
        with scope_of(cfg):
            module = build_weightless(without_weights(backbone))
    except Exception as error:  # constructors of other packages raise what they like
        raise ValueError(
            f'--backbone: the maps of {kind} are not known, as it cannot be built: {brief(error)}'
        ) from error
    if isinstance(module, Backbone):
        return Maps(list(module.out_channels), list(module.out_strides))
    module.eval()  # not chained: mmdet's train() returns None
    size = backbone.get('img_size', SIDE)  # mmseg's MAE and BEiT take no other
    height, width = (size, size) if isinstance(size, int) else size
    with torch.no_grad(), torch.device('meta'):
        maps = module(torch.zeros(1, backbone.get('in_channels', 3), height, width))
    if not isinstance(maps, list | tuple):
        raise ValueError(
            f'--backbone: {kind} is a whole network with branches of its own that the heads take apart: no other '
            'backbone has them'
        )
    if not all(torch.is_tensor(one) and one.ndim == 4 for one in maps):
        raise ValueError(f'--backbone: {kind} returns more than maps, such as class tokens, which the heads read')
    return Maps([one.shape[1] for one in maps], [round(width / one.shape[3]) for one in maps])
