"""``compile=dict(...)`` of a config: what of a model ``torch.compile`` is asked to compile."""

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import torch
from torch import nn

PARTS = ('backbone', 'neck', 'rpn_head', 'bbox_head', 'decode_head', 'auxiliary_head')
"""Parts of the models of mmdet and mmseg that compute tensors from tensors."""


def compile_parts(model: nn.Module, **settings: Any) -> list[str]:
    """Compile the networks of a ``model`` for its training steps; returns their names.

    Matching, losses and the optimizer look at values, and stay as they are. So does what evaluates: its images have
    many sizes.

    Args:
        settings: arguments of ``torch.compile``.
    """
    names = []
    for name, module in _networks(model):
        module.forward = _in_training(module, module.forward, torch.compile(module.forward, **settings))
        names.append(name)
    return names


def _networks(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name in PARTS:
        part = getattr(model, name, None)
        parts = part if isinstance(part, nn.ModuleList) else filter(None, [part])
        for i, module in enumerate(parts):
            label = f'{name}.{i}' if isinstance(part, nn.ModuleList) else name
            if not hasattr(module, 'criterion'):
                yield label, module
            elif hasattr(module, 'transformer'):  # of a head whose forward also takes the sizes of images
                yield f'{label}.transformer', module.transformer


def _in_training(module: nn.Module, eager: Callable, compiled: Callable) -> Callable:
    @wraps(eager)
    def forward(*args: Any, **kwargs: Any) -> Any:
        return (compiled if module.training else eager)(*args, **kwargs)

    return forward
