"""Inputs for the tests of multi-scale deformable attention, and a reference that shares no code with the first."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

LEVELS = [(7, 11), (5, 4), (1, 3), (2, 1)]


class Inputs(NamedTuple):
    """Arguments of a back end: ``spatial_shapes`` is flat."""

    value: Tensor
    spatial_shapes: list[int]
    sampling_locations: Tensor
    attention_weights: Tensor

    def to(self, *args) -> 'Inputs':
        """Move the tensors, or convert ``value`` and leave locations and weights in at least float32."""
        value, locations, weights = (self[i].to(*args) for i in (0, 2, 3))
        if value.dtype in (torch.float16, torch.bfloat16):
            locations, weights = self.sampling_locations, self.attention_weights
        return Inputs(value, self.spatial_shapes, locations.to(value.device), weights.to(value.device))

    @property
    def grad_output(self) -> Tensor:
        """Some gradient of the output (B, Q, M * D)."""
        b, q, m = self.sampling_locations.shape[:3]
        generator = torch.Generator().manual_seed(5)
        return torch.randn(b, q, m * self.value.shape[3], generator=generator).to(self.value)


def make_inputs(
    levels=tuple(LEVELS), batch=2, queries=13, heads=2, width=8, points=2, seed=0, low=-0.3, high=1.3
) -> Inputs:
    """Random values, locations in [low, high] and weights that add up to 1 over levels and points; float32."""
    generator = torch.Generator().manual_seed(seed)
    pixels = sum(h * w for h, w in levels)
    value = torch.randn(batch, pixels, heads, width, generator=generator)
    locations = torch.rand(batch, queries, heads, len(levels), points, 2, generator=generator) * (high - low) + low
    weights = torch.rand(batch, queries, heads, len(levels) * points, generator=generator).softmax(-1)
    weights = weights.view(batch, queries, heads, len(levels), points)
    return Inputs(value, list(itertools.chain.from_iterable(levels)), locations, weights)


@st.composite
def inputs(draw, widths=(1, 4, 8, 24, 30, 32), max_queries=9) -> Inputs:
    """Any number of levels, points and heads; locations on pixel centres and borders too."""
    size = st.integers(1, 9)
    levels = draw(st.lists(st.tuples(size, size), min_size=1, max_size=5))
    numbers = dict(
        batch=draw(st.integers(1, 3)),
        queries=draw(st.integers(1, max_queries)),
        heads=draw(st.integers(1, 4)),
        width=draw(st.sampled_from(widths)),
        points=draw(st.integers(1, 8)),
        seed=draw(st.integers(0, 2**16)),
    )
    made = make_inputs(levels, **numbers)
    if draw(st.booleans()):
        snap_(made, draw(st.sampled_from([0.0, 0.5, -0.5])))
    return made


def snap_(case: Inputs, shift: float) -> None:
    """Move all locations to pixel centres (0), or by half a pixel from them, those outside the image included."""
    for level, (h, w) in enumerate(pairs(case.spatial_shapes)):
        size = torch.tensor([w, h])
        locations = case.sampling_locations[:, :, :, level]
        locations.copy_(((locations * size).round() + 0.5 + shift) / size)


def pairs(spatial_shapes: list[int]) -> list[tuple[int, int]]:
    return list(zip(spatial_shapes[::2], spatial_shapes[1::2], strict=True))


def by_gathers(
    value: Tensor, spatial_shapes: list[int], sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """The operator in float64, pixel by pixel: x = location * width - 0.5, and pixels outside count as zero."""
    value, sampling_locations, attention_weights = (x.double() for x in (value, sampling_locations, attention_weights))
    b, q, m = sampling_locations.shape[:3]
    total, start = value.new_zeros(b, q, m, value.shape[3]), 0
    images, heads = torch.arange(b)[:, None, None, None], torch.arange(m)[None, None, :, None]
    for level, (h, w) in enumerate(pairs(spatial_shapes)):
        x = sampling_locations[:, :, :, level, :, 0] * w - 0.5
        y = sampling_locations[:, :, :, level, :, 1] * h - 0.5
        left, top = x.detach().floor(), y.detach().floor()
        for column, row in itertools.product((left, left + 1), (top, top + 1)):
            share = (1 - (x - column).abs()) * (1 - (y - row).abs()) * attention_weights[:, :, :, level]
            inside = (column >= 0) & (column < w) & (row >= 0) & (row < h)
            pixel = start + row.clamp(0, h - 1).nan_to_num(0).long() * w + column.clamp(0, w - 1).nan_to_num(0).long()
            share = torch.where(inside, share, 0)
            total = total + (share[..., None] * value[images, pixel, heads]).sum(3)
        start += h * w
    return total.flatten(2)


def gradients(function, case: Inputs, grad_output: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output of ``function`` and its gradients by value, locations and weights."""
    tensors = [case[i].detach().clone().requires_grad_() for i in (0, 2, 3)]
    out = function(tensors[0], case.spatial_shapes, *tensors[1:])
    grad_output = case.grad_output if grad_output is None else grad_output
    return out.detach(), *torch.autograd.grad(out, tensors, grad_output.to(out))


def smooth(case: Inputs) -> Tensor:
    """Where (B, Q, M, L, P, 1) the location gradient has one value: away from the edges between cells."""
    sizes = torch.tensor([[w, h] for h, w in pairs(case.spatial_shapes)]).view(-1, 1, 2)
    share = (case.sampling_locations.double() * sizes - 0.5) % 1
    return ((share > 0.02) & (share < 0.98)).all(-1, keepdim=True)


def assert_same_in_any_threads(run: Callable[[Inputs], list[Tensor]], case: Inputs) -> None:
    """One, two and five threads compute the same bits."""
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(run(case))
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(result, results[0], strict=True))
