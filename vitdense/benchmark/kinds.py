"""What kinds of operators the time of a step goes to."""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from torch.profiler import ProfilerActivity, profile

KINDS = {
    'products': r'mm$|bmm$|mv$|linear|matmul|gemm|conv|slow_conv|depthwise',
    'fused attention': r'scaled_dot_product|flash|fmha|efficient_attention',
    'softmax': r'softmax',
    'normalisation': r'norm',
    'activations': r'gelu|relu|sigmoid|silu|tanh|swish|threshold',
    'deformable attention': r'vitdense|ms_deform|grid_sampler',
    'sums and factors': r'add_?$|sub_?$|mul_?$|div_?$|sum|mean|addcmul|addcdiv|foreach|lerp',
    'copies': r'copy|cat$|clone|contiguous|index|gather|scatter|pad|roll|repeat|stack|fill|zero|upsample|interpolate',
}
"""Patterns of their names; the first that matches counts, and what none of them matches is the rest."""

REST = 'rest'


def kind_of(operator: str) -> str:
    """The kind of an operator, by its name in the profiler of PyTorch, such as 'aten::addmm'."""
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, operator)), REST)


def shares(step: Callable[[], Any], device: str) -> dict[str, float]:
    """Share of each kind in the time of ``step``, which is called twice; the largest first, those of nothing left out.

    On a GPU of the time of its kernels, on a CPU of the time within the operators of PyTorch and between them.
    """
    step()
    gpu = device.startswith('cuda')
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    with profile(activities=activities) as recorded:
        step()
    spent: Counter[str] = Counter()
    for event in recorded.key_averages():
        spent[kind_of(event.key)] += event.self_device_time_total if gpu else event.self_cpu_time_total
    total = spent.total()
    return {kind: time / total for kind, time in spent.most_common() if time > 0}
