"""``tools/get_flops.py``: parameters and floating-point operations, counted as the papers' tables count them."""

import argparse
import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import BaseDataElement
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop

from vitdense.commands.prepare import describe_run
from vitdense.config.building import building
from vitdense.config.load import load_config
from vitdense.config.settle import settle

_CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_CPU_LINEAR = getattr(torch.ops.mkldnn, '_linear_pointwise', None)  # not on every processor
_ATTENTION = ('bmm', 'baddbmm', 'scaled_dot_product')


def run(args: argparse.Namespace) -> None:
    """Print the counts of the model of a config."""
    cfg = load_config(args.config)
    settle(cfg)
    describe_run(cfg, ())
    result = complexity(cfg, tuple(args.shape))
    print(f'parameters  {result.parameters / 1e6:.2f} M')
    print(f'FLOPs       {result.flops / 1e9:.2f} G, of which attention {result.attention_flops / 1e9:.2f} G')


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


def complexity(cfg: Config, hw: tuple[int, int]) -> Complexity:
    """Count the model of ``cfg`` on one image of ``hw`` pixels, in evaluation mode (two stages: 1000 proposals).

    It runs without data on the meta device; where it looks at values, on the CPU; and where it asks for ground truth
    otherwise, it predicts.
    """
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    with building(cfg):
        model = MODELS.build(cfg.model).eval().requires_grad_(False)  # parameters as arguments confuse the counter
    parameters = sum(p.numel() for p in model.parameters())
    counts = _counts(model, hw)
    attention = sum(n for op, n in counts.items() if any(name in str(op) for name in _ATTENTION))
    return Complexity(parameters, sum(counts.values()) // 2, attention // 2)


def _counts(model: nn.Module, hw: tuple[int, int]) -> dict[Any, int]:
    """Operations of one image by operator, a multiplication and an addition as two."""
    try:
        return _run(copy.deepcopy(model).to('meta'), hw, 'tensor', 'meta')
    except Exception:  # whatever is made of values that are not there
        try:
            return _run(model, hw, 'tensor', 'cpu')
        except Exception:  # whatever is made of ground truth that is not there
            return _run(model, hw, 'predict', 'cpu')


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
