"""What the tests of backbones share: weights, images and files of random values, and how close maps have to be."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from support import SUPPORT
from vitdense.models.layers.fast import products as libraries

LAYOUTS = SUPPORT / 'checkpoint_layouts'
TOLERANCE = 1e-4


def randomize_(module: nn.Module, gain: float = 0.5) -> nn.Module:
    """Weights that make every path count: no bias, norm or table is left at zero or one, and none dwarfs the others."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if re.search('rel_pos|bias_table|mid_pos', name):
            parameter.data = 0.5 * noise
        elif parameter[0].numel() == 1:  # biases and scales
            parameter.data += 0.05 * noise
        elif parameter.ndim == 3:  # tokens and position tables
            parameter.data = 0.5 * noise
        else:
            parameter.data = gain * noise / parameter[0].numel() ** 0.5
    module.eval()  # mmseg's returns None
    return module


def image(hw: tuple[int, int], batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, *hw, generator=torch.Generator().manual_seed(1))


def assert_maps_close(ours, theirs) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert b.std() > 1e-2
        assert (a - b).abs().max() <= TOLERANCE


def layout_of(name: str) -> dict[str, Any]:
    """Names, shapes and types of what a released file holds."""
    return json.loads((LAYOUTS / f'{name}.json').read_text())


def release(name: str) -> dict[str, Tensor]:
    """A state dict with the keys and shapes of a released file, random values."""
    torch.manual_seed(0)
    keys = layout_of(name)['keys']
    return {key: torch.randn(shape) if dtype == 'float32' else torch.zeros(shape) for key, shape, dtype in keys}


def save(folder: Path, content: Any) -> str:
    torch.save(content, folder / 'weights.pth')
    return str(folder / 'weights.pth')


def products(monkeypatch) -> list[str]:
    """A list that grows by 'linear' or 'conv2d' with each call of such a function, but not with its gradient."""
    calls: list[str] = []
    for name in ('linear', 'conv2d'):
        function = getattr(F, name)

        def counted(*args, function=function, name=name, **kwargs):
            calls.append(name)
            return function(*args, **kwargs)

        monkeypatch.setattr(F, name, counted)
    monkeypatch.setattr(libraries, '_choice', frozenset())  # of oneDNN, whose gradient is made of linear layers
    return calls


@contextmanager
def kept(sizes: list[int]) -> Iterator[None]:
    """Append to ``sizes`` the bytes that are kept for the backward pass, without parameters."""
    storages = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield
    sizes.append(sum(storages.values()))
