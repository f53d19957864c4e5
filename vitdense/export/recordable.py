"""Modules whose sizes would become numbers in the record, and what computes the same of pictures of any size."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def recordable(model: nn.Module) -> nn.Module:
    """A copy of a model in which all modules can be recorded with pictures of any size."""
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            new = _recordable(child)
            if new is not None:
                setattr(parent, name, new)
    return model


def _recordable(module: Any) -> nn.Module | None:
    name = type(module).__name__
    if name == 'Upsample' and getattr(module, 'size', None) is None:
        return Enlarge(float(module.scale_factor), module.mode, module.align_corners)
    size = module.output_size if name == 'AdaptiveAvgPool2d' else 1
    if size not in (1, (1, 1)):
        return AveragePool((size, size) if isinstance(size, int) else size)
    return None


class Enlarge(nn.Module):
    """Resize by a factor, as ``Upsample`` of mmseg and of PyTorch."""

    def __init__(self, factor: float, mode: str, align_corners: bool | None) -> None:
        super().__init__()
        self.factor, self.mode, self.align_corners = factor, mode, align_corners

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=self.factor, mode=self.mode, align_corners=self.align_corners)


class AveragePool(nn.Module):
    """``nn.AdaptiveAvgPool2d`` as two products with matrices of shares."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (self._shares(x, 2 + axis, number) for axis, number in enumerate(self.size))
        return rows @ x @ columns.t()

    @staticmethod
    def _shares(x: Tensor, dim: int, number: int) -> Tensor:
        """(number, length): bin i averages from floor(i length / number) to ceil((i + 1) length / number)."""
        place = torch.arange(x.shape[dim], device=x.device)
        bins = torch.arange(number, device=x.device)[:, None]
        first = torch.div(bins * x.shape[dim], number, rounding_mode='floor')
        last = -torch.div(-(bins + 1) * x.shape[dim], number, rounding_mode='floor')
        inside = ((place >= first) & (place < last)).to(x.dtype)
        return inside / inside.sum(1, keepdim=True)
