"""Parameters and floating-point operations, counted as the papers' tables count them."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.structures import BaseDataElement
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop

_CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_CPU_LINEAR = getattr(torch.ops.mkldnn, '_linear_pointwise', None)  # not on every processor
_ATTENTION = ('bmm', 'baddbmm', 'scaled_dot_product')


@dataclass(frozen=True)
class Complexity:
    """Counts for one image.

    Attributes:
        parameters: number of parameters.
        flops: multiply-adds of convolutions, linear layers and attention.
        attention_flops: multiply-adds of the two matrix products in softmax attention, which some tables leave out.
    """

    parameters: int
    flops: int
    attention_flops: int


def complexity_of(model: nn.Module, hw: tuple[int, int], windows: bool = False) -> Complexity:
    """Count a model, whose parameters need no gradients, on one image of ``hw`` pixels (two stages: 1000 proposals).

    It runs without data on the meta device; where it looks at values, on its own; and where it asks for ground truth
    otherwise, it predicts.

    Args:
        model: in evaluation mode.
        hw: height and width.
        windows: count all windows of a segmentor that slides over pictures, not the picture as a whole.
    """
    slides = windows and (getattr(model, 'test_cfg', None) or {}).get('mode', 'whole') != 'whole'
    counts = _counts(model, hw, slides)
    attention = sum(n for op, n in counts.items() if any(name in str(op) for name in _ATTENTION))
    return Complexity(parameters_of(model), sum(counts.values()) // 2, attention // 2)


def parameters_of(model: nn.Module) -> int:
    """Their number."""
    return sum(p.numel() for p in model.parameters())


def _counts(model: nn.Module, hw: tuple[int, int], predicts: bool) -> dict[Any, int]:
    """Operations of one image by operator, a multiplication and an addition as two."""
    device = next(model.parameters()).device.type
    if predicts:
        return _run(model, hw, 'predict', device)
    try:
        return _run(copy.deepcopy(model).to('meta'), hw, 'tensor', 'meta')
    except Exception:  # whatever is made of values that are not there
        try:
            return _run(model, hw, 'tensor', device)
        except Exception:  # whatever is made of ground truth that is not there
            return _run(model, hw, 'predict', device)


def _run(model: nn.Module, hw: tuple[int, int], mode: str, device: str) -> dict[Any, int]:
    meta = dict(img_shape=hw, ori_shape=hw, pad_shape=hw, batch_input_shape=hw, scale_factor=(1.0, 1.0))
    counter = FlopCounterMode(display=False, custom_mapping=_OF_CPUS)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operator for the attention of PyTorch, which is not counted
    try:
        with torch.no_grad(), counter:
            model(torch.zeros(1, 3, *hw, device=device), [BaseDataElement(metainfo=meta)], mode=mode)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return counter.get_flop_counts()['Global']


def _cpu_attention_flop(query_shape: Any, key_shape: Any, value_shape: Any, *args: Any, **kwargs: Any) -> int:
    return sdpa_flop(query_shape, key_shape, value_shape)


def _cpu_linear_flop(rows_shape: Sequence[int], weight_shape: Sequence[int], *args: Any, **kwargs: Any) -> int:
    return 2 * math.prod(rows_shape) * weight_shape[0]


_OF_CPUS = {_CPU_ATTENTION: _cpu_attention_flop, _CPU_LINEAR: _cpu_linear_flop}
