"""Does a model run with its new backbone, and what of it has no part in the result? Tried without weights or images."""

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from torch import Tensor, nn

from vitdense.config.swap.measure import SIDE, build_weightless, scope_of, without_weights
from vitdense.models.backbones import Backbone
from vitdense.names import brief


def idle_parameters(cfg: Config, before: Config) -> list[str]:
    """Parameters of backbone and neck that get no gradient from maps, or from the heads of a segmentor.

    Args:
        cfg: a config after the swap.
        before: the same before it.

    Raises:
        ValueError: the model of ``cfg`` cannot be built or run, while that of ``before`` can.
    """
    try:
        return _run(cfg)
    except Exception as error:  # models of other packages raise what they like
        try:
            _run(before)
        except Exception:
            return []  # the model cannot be tried here, whatever its backbone
        raise ValueError(f'--backbone: the model does not run with it: {brief(error)}') from error


def _run(cfg: Config) -> list[str]:
    with scope_of(cfg):
        model: Any = build_weightless(without_weights(cfg.model))
    model.eval()
    backbone, image = model.backbone, _image(cfg.model.backbone)
    maps = _maps(backbone, image)
    model.backbone = _Given(maps)
    with torch.device('meta'):
        _backward(_results(model, image))
    unread = [i for i, one in enumerate(maps) if one.grad is None]
    idle = _without_gradient('neck', model.neck) if getattr(model, 'neck', None) else []
    if unread and isinstance(backbone, Backbone):
        idle += _made_for(backbone, image, unread)
    return idle


def _made_for(backbone: Backbone, image: Tensor, unread: list[int]) -> list[str]:
    """Parameters that only the maps ``unread`` depend on; what they are called if the backbone cannot be tried."""
    try:
        _backward([one for i, one in enumerate(backbone(image)) if i not in unread])
    except Exception:  # an operator without a kernel for the meta device
        return [f'backbone.out_indices[{i}]' for i in unread]
    return _without_gradient('backbone', backbone)


class _Given(nn.Module):
    """In place of a backbone, what it returns."""

    def __init__(self, maps: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.maps


def _image(backbone: ConfigDict) -> Tensor:
    size = backbone.get('img_size', SIDE)
    height, width = (size, size) if isinstance(size, int) else size
    return torch.zeros(1, backbone.get('in_channels', 3), height, width, device='meta')


def _maps(backbone: nn.Module, image: Tensor) -> tuple[Tensor, ...]:
    """Maps like those that a backbone makes of an image; only foreign ones have to be run for that."""
    if isinstance(backbone, Backbone):
        sizes = zip(backbone.out_channels, backbone.out_strides, strict=True)
        made = [
            image.new_empty(1, channels, *(-(-side // stride) for side in image.shape[2:]))
            for channels, stride in sizes
        ]
    else:
        with torch.no_grad():
            made = list(backbone(image))
    return tuple(one.requires_grad_() for one in made)


def _backward(results: Any) -> None:
    torch.stack([one.float().sum() for one in _tensors(results) if one.requires_grad]).sum().backward()


def _without_gradient(part: str, module: nn.Module) -> list[str]:
    idle = [name for name, parameter in module.named_parameters() if parameter.requires_grad and parameter.grad is None]
    return [f'{part}.{name}' for name in idle]


def _results(model: Any, image: Tensor) -> list[Any]:
    """What a segmentor's heads make of an image; of others, and of a detector, the maps that heads read."""
    maps = model.extract_feat(image)
    results: list[Any] = []
    for name in ('decode_head', 'auxiliary_head'):
        cascade = name == 'decode_head'  # heads after the first get what the one before has made
        before: list[Any] = []
        for head in _listed(getattr(model, name, None)):
            takes = list(inspect.signature(head.forward).parameters)
            given = [maps, *before] if cascade else [maps]
            runs = takes[0] in ('inputs', 'x') and len(takes) == len(given)
            results.append(head(*given) if runs else maps)
            before = results[-1:]
    return results or [maps]


def _listed(heads: nn.Module | None) -> list[nn.Module]:
    if heads is None:
        return []
    return list(heads) if isinstance(heads, nn.ModuleList) else [heads]


def _tensors(node: Any) -> Iterator[Tensor]:
    if isinstance(node, Tensor):
        yield node
    elif isinstance(node, list | tuple):
        for one in node:
            yield from _tensors(one)
