"""Modules whose sizes would become numbers in the record, and what computes the same of pictures of any size."""

import copy
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from vitdense.models.layers.sizes import average_pool


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
        return average_pool(x, self.size)
