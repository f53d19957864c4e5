"""Times multi-scale deformable attention, ours and others: ``python benchmarks/ms_deform_attn.py --out FILE.md``.

Each round calls every implementation once, so that what else the machine does meets all of them alike. The ratio to the
back end ``reference`` and the bandwidth are made of the minima over the rounds. In float32 the results are compared
first. Others than ours get half-precision locations and weights with half-precision values, as they require.

On a GPU the time is that between two events, after a write of 256 MiB that empties the L2 cache and a pause of about
a millisecond: a call that keeps the host busy for longer is timed by the host. On a CPU it is the wall time of the
second of two calls.

Extra memory is the growth at its peak, results included: of what the allocator of PyTorch has given out on a GPU, of
the resident memory of the process on a CPU (Linux only), where scratch memory of compiled code counts too.

Bandwidth counts the traffic that no implementation can avoid: each input is read once and each result written once,
in forward and in backward, in the types of our operator (locations, weights and their gradients in float32).
"""

import argparse
import itertools
import statistics
import sys
from collections import namedtuple
from collections.abc import Callable
from functools import partial

import torch
from measuring import brief, clock_of, options, report
from torch import Tensor

from vitdense.benchmark.machine import extra_memory
from vitdense.compat import mmcv_ext
from vitdense.ops.ms_deform_attn import BACKENDS, BackendUnavailableError, ms_deform_attn, use_backend

LEVELS = [(100, 167), (50, 84), (25, 42), (13, 21)]  # strides 8 to 64 of an image of 800 x 1333
HEADS, WIDTH, POINTS = 8, 32, 4
SHAPES = {'encoder': sum(h * w for h, w in LEVELS), 'decoder-300': 300, 'decoder-900': 900}
LOCATIONS = ('local', 'uniform')
DTYPES = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}
PACKAGES = ('vitdense', 'torch', 'triton', 'onedl-mmcv', 'mmcv', 'transformers', 'msda-triton', 'deformops')
Pyramid = namedtuple('Pyramid', ('sizes', 'tensor', 'starts'))  # LEVELS in the forms that implementations take
Gap = namedtuple('Gap', ('name', 'reason', 'is_fault'))  # an implementation that cannot be measured; a fault is ours
HEADER = ('shape', 'type', 'locations', 'pass', 'implementation', 'median, ms', 'minimum, ms', 'times reference')
HEADER += ('extra memory, MB', 'GB/s')


def make_inputs(queries: int, local: bool, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Values, locations and weights of an image: samples within some pixels of their query, or anywhere."""
    generator = torch.Generator().manual_seed(0)
    locations = torch.rand(1, queries, HEADS, len(LEVELS), POINTS, 2, generator=generator)
    if local:
        centres = [torch.cartesian_prod((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w) for h, w in LEVELS]
        queries_xy = torch.cat(centres).flip(1)
        if queries != len(queries_xy):
            queries_xy = torch.rand(queries, 2, generator=generator)
        offsets = 2 * torch.randn(locations.shape, generator=generator)  # in pixels
        locations = queries_xy.view(1, queries, 1, 1, 1, 2) + offsets / torch.tensor(LEVELS).flip(1).view(-1, 1, 2)
    value = torch.randn(1, SHAPES['encoder'], HEADS, WIDTH, generator=generator).to(device, dtype)
    weights = torch.rand(locations.shape[:-1], generator=generator).flatten(3).softmax(-1).view(locations.shape[:-1])
    return value, locations.to(device), weights.to(device)


def traffic(value: Tensor, locations: Tensor, weights: Tensor, backward: bool) -> int:
    """Bytes read and written at the least; in backward each input is read again and has a gradient."""
    output = locations.shape[1] * HEADS * WIDTH * value.element_size()
    inputs = sum(x.numel() * x.element_size() for x in (value, locations, weights))
    return inputs + output + backward * (2 * inputs + output)


def ours(pyramid: Pyramid) -> Callable:
    return lambda value, *others: ms_deform_attn(value, pyramid.sizes, *others)


def mmcv_python(pyramid: Pyramid) -> Callable:
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch as function

    function = getattr(function, '__wrapped__', function)  # mmcv's own, where vitdense has put its operator
    return lambda value, *others: function(value, pyramid.tensor, *others)


def mmcv_compiled(pyramid: Pyramid) -> Callable:
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

    if mmcv_ext.is_stand_in() or pyramid.tensor.device.type == 'cpu':
        raise ImportError('mmcv has no compiled operator here')
    return lambda value, *others: MultiScaleDeformableAttnFunction.apply(value, *pyramid[1:], *others, 1)


def transformers(pyramid: Pyramid) -> Callable:
    from transformers.models.deformable_detr.modeling_deformable_detr import MultiScaleDeformableAttention

    module = MultiScaleDeformableAttention()
    return lambda value, *others: module(value, pyramid.tensor, pyramid.sizes, pyramid.starts, *others, 1)


def msda_triton(pyramid: Pyramid) -> Callable:
    from msda_triton.frontend import triton_multiscale_deformable_attention as function  # the one without a fallback

    return lambda value, *others: function(value, pyramid.tensor, *others, 'zeros', False).flatten(2)


def deformops(pyramid: Pyramid, backend: str | None = None) -> Callable:
    from deformops.registry import Backend, msda

    chosen = backend and Backend(backend)  # None: on a GPU Triton, on a CPU PyTorch
    return lambda value, *others: msda(value, *pyramid[1:], *others, backend=chosen)


IMPLEMENTATIONS = {
    **dict.fromkeys(BACKENDS, ours),
    'mmcv, Python': mmcv_python,
    'mmcv, compiled': mmcv_compiled,
    'transformers': transformers,
    'msda-triton': msda_triton,
    'deformops': deformops,
    'deformops, compiled': partial(deformops, backend='cuda'),
}


def call(function: Callable, backend: str | None, inputs: tuple[Tensor, ...], backward: bool) -> Tensor:
    with use_backend(backend), torch.set_grad_enabled(backward):
        output = function(*inputs)
        if backward:
            torch.autograd.grad(output, inputs, torch.ones_like(output))
    return output


def candidates(
    names: list[str], pyramid: Pyramid, inputs: tuple[Tensor, ...], backward: bool, missing: dict[Gap, set[str]]
) -> dict[str, Callable]:
    """Name -> a call that is known to work; ``missing`` gets the types that others cannot compute, and why."""
    found, dtype = {}, inputs[0].dtype
    for name in dict.fromkeys(('reference', *names)):
        load = IMPLEMENTATIONS[name]
        backend = name if name in BACKENDS else None
        leaves = tuple((x if backend else x.to(dtype)).detach().requires_grad_() for x in inputs)
        try:
            step = partial(call, load(pyramid), backend, leaves, backward)
            output = step()
            found[name] = step
            if dtype == torch.float32:
                torch.testing.assert_close(output, found['reference'](), rtol=1e-3, atol=1e-3)
        except Exception as error:
            found.pop(name, None)
            is_fault = backend is not None and not isinstance(error, BackendUnavailableError)
            gap = Gap(name, brief(error), is_fault)
            missing.setdefault(gap, set()).add(str(dtype).removeprefix('torch.'))
    return found


def measure(args: argparse.Namespace, cases: list[list[tuple[str, ...]]], missing: dict[Gap, set[str]]) -> None:
    """Fill in rows of the table by case, and what could not be measured."""
    tensor = torch.tensor(LEVELS, device=args.device)
    pyramid = Pyramid(LEVELS, tensor, tensor.prod(1).cumsum(0) - tensor.prod(1))
    clock = clock_of(args.device, head_start=2_000_000)
    for case in itertools.product(args.shapes, args.dtypes, args.locations, ('forward', 'forward and backward')):
        shape, dtype, locations, passes = case
        inputs = make_inputs(SHAPES[shape], locations == 'local', DTYPES[dtype], args.device)
        backward = passes != 'forward'
        steps = candidates(args.implementations, pyramid, inputs, backward, missing)
        rounds = [{name: clock(step) for name, step in steps.items()} for _ in range(args.repeat)]
        least = {name: min(times[name] for times in rounds) for name in steps}
        cases.append([])
        for name, step in steps.items():
            median = statistics.median(times[name] for times in rounds)
            bandwidth = traffic(*inputs, backward) / least[name] / 1e6
            cells = (f'{x:.3f}' for x in (median, least[name], least[name] / least['reference']))
            cases[-1].append((*case, name, *cells, f'{extra_memory(step, args.device):.1f}', f'{bandwidth:.3g}'))


def main() -> None:
    parser = options(__doc__, repeat=10)
    parser.add_argument('--dtypes', nargs='+', choices=DTYPES, default=list(DTYPES))
    parser.add_argument('--shapes', nargs='+', choices=SHAPES, default=list(SHAPES))
    parser.add_argument('--locations', nargs='+', choices=LOCATIONS, default=list(LOCATIONS))
    parser.add_argument('--implementations', nargs='+', choices=IMPLEMENTATIONS, default=list(IMPLEMENTATIONS))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cases, missing = [], {}
    try:
        measure(args, cases, missing)
    finally:
        notes = [f'Not measured: {gap.name} ({", ".join(sorted(x))}): {gap.reason}' for gap, x in missing.items()]
        report(args, HEADER, cases, PACKAGES, notes)
    if any(gap.is_fault for gap in missing):
        sys.exit('a back end of ours has failed: see the notes')


if __name__ == '__main__':
    main()
