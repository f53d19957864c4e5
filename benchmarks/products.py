"""Times our own autograd functions against PyTorch's over shapes and strides: ``python benchmarks/products.py``.

Each row is a function with one of its inputs, or the gradient that it gets, laid out in one way; the rest is dense.
Both are timed in turn, and must give the same where nothing is drawn. Ratios are ours to theirs, minimum over minimum,
of the forward pass and of both passes: dropout, for one, does in the backward pass what PyTorch's does in the forward
pass. A ratio above 1.5 is told below the table, unless the difference is under 100 microseconds.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from measuring import options, report
from torch import Tensor
from torch.nn import functional as F

from vitdense.models.layers.fast.dropout import dropout, relu_dropout
from vitdense.models.layers.fast.linear import linear
from vitdense.models.layers.fast.products import ONEDNN, PYTORCH, choose, use
from vitdense.models.layers.rel_pos import attend_rows
from vitdense.models.layers.window import cut_windows, window_attention
from vitdense.ops.ms_deform_attn import ms_deform_attn, use_backend

HEADER = ('function', 'shape', 'layout', 'forward, ms', 'PyTorch', 'ratio', 'with backward, ms', 'PyTorch', 'ratio')
LIMIT = 1.5
CALL = 0.1
"""Milliseconds that a call of a function of ours may take more."""

LAYOUTS: dict[str, Callable[[tuple[int, ...]], Tensor]] = {
    'dense': torch.randn,
    'expanded': lambda shape: torch.randn(1).expand(shape),
    'expanded rows': lambda shape: torch.randn(1, *shape[1:]).expand(shape),
    'transposed': lambda shape: torch.randn(*shape[:-2], shape[-1], shape[-2]).transpose(-1, -2),
    'not aligned': lambda shape: torch.randn(math.prod(shape) + 1)[1:].view(shape),
    'sliced columns': lambda shape: torch.randn(*shape[:-1], 2 * shape[-1] + 1)[..., 1 : 1 + shape[-1]],
    'sliced rows': lambda shape: torch.randn(2 * shape[0], *shape[1:])[::2],
}


class Case(NamedTuple):
    """A function of ours and PyTorch's, the shapes of their inputs, and which of them get all layouts."""

    name: str
    ours: Callable[..., Tensor]
    theirs: Callable[..., Tensor]
    shapes: tuple[tuple[int, ...], ...]
    inputs: tuple[str, ...]
    equal: bool = True

    def rows(self) -> Iterator[tuple[str, list[Tensor], Callable[[tuple[int, ...]], Tensor]]]:
        """Layouts: what is laid out how, the inputs, and what makes the gradient."""
        yield 'dense', [torch.randn(shape) for shape in self.shapes], torch.randn
        for layout, make in LAYOUTS.items():
            if layout == 'dense':
                continue
            for index, name in enumerate(self.inputs):
                tensors = [(make if i == index else torch.randn)(shape) for i, shape in enumerate(self.shapes)]
                yield f'{name} {layout}', tensors, torch.randn
            yield f'gradient {layout}', [torch.randn(shape) for shape in self.shapes], make


WINDOW, SHIFT = (7, 7), (3, 3)


def in_windows(qkv: Tensor, bias: Tensor, hw: tuple[int, int]) -> Tensor:
    windows = cut_windows(1, hw, WINDOW, SHIFT, qkv.device)
    return window_attention(qkv, bias, windows, qkv.shape[-1] ** -0.5)


def in_windows_by_pytorch(qkv: Tensor, bias: Tensor, hw: tuple[int, int]) -> Tensor:
    windows = cut_windows(1, hw, WINDOW, SHIFT, qkv.device)
    results = []
    for part, mask in zip(qkv.split(windows.counts), bias + windows.masks, strict=True):
        q, k, v = part.transpose(1, 3).unbind(2)
        results.append(F.scaled_dot_product_attention(q, k, v, mask[None]).transpose(1, 2))
    return torch.cat(results).flatten(2)


def with_offsets_by_pytorch(q: Tensor, rows: Tensor, columns: Tensor, k: Tensor, v: Tensor) -> Tensor:
    bias = (rows[..., None] + columns[..., None, :]).flatten(4).flatten(2, 3) * q.shape[-1] ** -0.5
    return F.scaled_dot_product_attention(q.flatten(2, 3), k, v, bias)


def sampled(value: Tensor, weights: Tensor, backend: str | None) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    places = torch.rand(*weights.shape[:3], 1, 4, 2, generator=generator)
    with use_backend(backend):
        return ms_deform_attn(value, ((32, 42),), places, weights)


def cases() -> list[Case]:
    torch_linear = partial(F.linear, bias=None)
    our_linear = partial(linear, bias=None)
    found = [
        Case('linear', our_linear, torch_linear, ((rows, c), (d, c)), ('rows', 'weight'))
        for rows, c, d in [(128, 768, 3072), (1344, 96, 384), (1344, 384, 96), (1029, 257, 511), (1, 768, 3072)]
    ]
    found.append(Case('linear', our_linear, torch_linear, ((2, 672, 256), (256, 256)), ('rows', 'weight')))
    found.append(Case('linear', our_linear, torch_linear, ((0, 256), (256, 256)), ()))
    for shape in [(1344, 1024), (1029, 511), (1, 1024)]:
        found.append(Case('dropout', partial(dropout, p=0.1), partial(F.dropout, p=0.1), (shape,), ('input',), False))
        found.append(
            Case(
                'relu_dropout',
                lambda x: relu_dropout(x * 1, 0.1),
                lambda x: F.dropout(F.relu(x * 1), 0.1),
                (shape,),
                ('input',),
                False,
            )
        )
    for hw, count in (((56, 42), 48), ((7, 7), 1)):
        ours, theirs = (partial(function, hw=hw) for function in (in_windows, in_windows_by_pytorch))
        shapes = (count, 49, 3, 3, 32), (3, 49, 49)
        found.append(Case('window_attention', ours, theirs, shapes, ('projections', 'bias')))
    for h, w in ((32, 42), (5, 3), (1, 1)):
        offsets = (1, 2, h, w, h), (1, 2, h, w, w)
        shapes = (1, 2, h, w, 64), *offsets, (1, 2, h * w, 64), (1, 2, h * w, 64)
        names = 'queries', 'rows', 'columns', 'keys', 'values'
        found.append(Case('attend_rows', attend_rows, with_offsets_by_pytorch, shapes, names))
    shapes = (1, 1344, 8, 32), (1, 300, 8, 1, 4)
    operator = partial(sampled, backend=None), partial(sampled, backend='reference')
    found.append(Case('ms_deform_attn', *operator, shapes, ('values', 'weights')))
    return found


def best_of(calls: list[Callable[[], object]], rounds: int) -> list[float]:
    """Milliseconds of each call, the least of some rounds; one that takes long is not repeated."""
    best = [math.inf] * len(calls)
    for turn in range(rounds + 1):
        for i, call in enumerate(calls):
            if 1e3 < best[i] < math.inf:
                continue
            start = time.perf_counter()
            call()
            took = (time.perf_counter() - start) * 1e3
            if turn or took > 1e3:  # the first call warms up
                best[i] = min(best[i], took)
    return best


def measure(case: Case, rounds: int) -> Iterator[tuple[tuple[str, ...], str]]:
    """Rows of the table, each with what is to be told about it."""
    for layout, tensors, gradient in case.rows():
        inputs = [x.requires_grad_() for x in tensors]
        functions = case.ours, case.theirs
        results = [function(*inputs) for function in functions]
        grad = gradient(tuple(results[0].shape)) if results[0].numel() else torch.empty_like(results[0])
        grads = [torch.autograd.grad(result, inputs, grad, retain_graph=True) for result in results]
        if case.equal:
            for ours, theirs in zip([results[0], *grads[0]], [results[1], *grads[1]], strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
        forward = best_of([partial(function, *inputs) for function in functions], rounds)
        back = [partial(torch.autograd.grad, result, inputs, grad, retain_graph=True) for result in results]
        both = [a + b for a, b in zip(forward, best_of(back, rounds), strict=True)]
        cells: list[str] = []
        told = []
        shape = ', '.join('x'.join(map(str, x.shape)) for x in inputs)
        for name, (ours, theirs) in (('forward', forward), ('forward and backward', both)):
            cells += [f'{ours:.3f}', f'{theirs:.3f}', f'{ours / theirs:.2f}']
            if ours > LIMIT * theirs and ours - theirs > CALL:
                told.append(f'Slower: {case.name}, {shape}, {layout}, {name}: {ours / theirs:.2f}')
        yield (case.name, shape, layout, *cells), '\n'.join(told)


def main() -> None:
    parser = options(__doc__, repeat=5)
    parser.add_argument('--functions', nargs='+', choices=sorted({case.name for case in cases()}))
    parser.add_argument('--library', choices=('pytorch', 'onednn'), help='of all large products; default: as chosen')
    args: argparse.Namespace = parser.parse_args()
    if args.device != 'cpu':
        parser.error('--device: these functions are for CPUs')
    torch.set_num_threads(args.threads)
    large = {name for name in ONEDNN if not name.endswith('small')}
    use({'pytorch': PYTORCH, 'onednn': large, None: choose()}[args.library])
    tables, notes = [], []
    for case in cases():
        if not args.functions or case.name in args.functions:
            found = list(measure(case, args.repeat))
            tables.append([row for row, _ in found])
            notes += [note for _, note in found if note]
    report(args, HEADER, tables, ('vitdense', 'torch'), notes or [f'No ratio is above {LIMIT}.'])


if __name__ == '__main__':
    main()
