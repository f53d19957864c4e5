"""The compiled CPU back end: every set of instructions, every type, any number of threads."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.deform_attn import assert_same_in_any_threads, by_gathers, gradients, inputs, make_inputs, smooth

from vitdense.ops.ms_deform_attn import cpu

REASON = cpu.unavailable(torch.device('cpu'))
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
WIDTHS = [4] if REASON else [width for width in (4, 8, 16) if width <= torch.ops.vitdense_cpu.widest()]
HALVES = [torch.float16, torch.bfloat16]


@pytest.fixture(params=WIDTHS)
def width(request):
    """Floats in a vector: SSE2, AVX2, AVX-512."""
    return request.param


def run(case, width=0, grad_output=None):
    """Output and gradients by value, locations and weights; 0 leaves the vectors to the library."""
    grad_output = case.grad_output if grad_output is None else grad_output
    ops = torch.ops.vitdense_cpu
    return [ops.forward(*case, width), *ops.backward(grad_output, *case, width)]


def assert_close(found, expected, tolerance):
    """Relative to the largest magnitude of what is expected.

    A sample at the very border has a weight of 0 or of the rounding of its coordinate, 2e-7 of a pixel: so the floor.
    """
    atol = tolerance * max(expected.abs().amax().item(), 0.1)
    torch.testing.assert_close(found.double(), expected.double(), rtol=0, atol=atol)


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(inputs(widths=(1, 3, 4, 8, 16, 24, 30, 32, 37, 64), max_queries=70), st.sampled_from([0, *WIDTHS]))
def test_it_is_the_sum_over_pixels(case, width):
    found, expected = run(case, width), list(gradients(by_gathers, case))
    found[2], expected[2] = found[2] * smooth(case), expected[2] * smooth(case)
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs, 1e-5)


@settings(max_examples=60, deadline=None)
@given(inputs(widths=(1, 8, 24, 30, 32, 37)), st.sampled_from(HALVES), st.sampled_from([0, *WIDTHS]))
def test_half_types_are_float32_rounded_once(case, dtype, width):
    rounded, grad_output = case.to(dtype), case.grad_output.to(dtype)
    found = run(rounded, width, grad_output)
    exact = run(rounded._replace(value=rounded.value.float()), width, grad_output.float())
    assert [x.dtype for x in found] == [dtype, dtype, torch.float32, torch.float32]
    for half, wide in zip(found[:2], exact[:2], strict=True):  # half a step of rounding, and sums in another order
        torch.testing.assert_close(half.float(), wide, rtol=torch.finfo(dtype).eps * 0.51, atol=1e-5)
    for ours, theirs in zip(found[2:], exact[2:], strict=True):
        assert_close(ours, theirs, 1e-5)


@pytest.mark.parametrize('dtype', HALVES)
def test_conversions_of_half_types(width, dtype):
    """Every number of 16 bits passes through unchanged, infinities and subnormal ones included."""
    numbers = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    value = numbers.view(1, -1, 1, 16)
    pixels = value.shape[1]
    centres = (torch.arange(pixels) + 0.5) / pixels
    locations = torch.stack([torch.full_like(centres, 0.5), centres], dim=-1).view(1, pixels, 1, 1, 1, 2)
    out = torch.ops.vitdense_cpu.forward(value, [pixels, 1], locations, torch.ones(1, pixels, 1, 1, 1), width)
    exact = torch.ops.vitdense_cpu.forward(value.float(), [pixels, 1], locations, torch.ones(1, pixels, 1, 1, 1), 4)
    torch.testing.assert_close(out.flatten(), exact.to(dtype).flatten(), rtol=0, atol=0, equal_nan=True)
    finite = numbers[numbers.isfinite()]
    assert (out.flatten()[numbers.isfinite()] == finite).float().mean() > 0.99


@pytest.mark.parametrize('dtype', HALVES)
def test_outputs_are_rounded_as_pytorch_does(width, dtype):
    """A pixel of ones times weights of any bits: ties go to even, and no NaN becomes a number."""
    bits = torch.randint(-(2**31), 2**31, (20000,), generator=torch.Generator().manual_seed(0)).int()
    bits[::2] &= ~0xFFF  # every 16th of these is a tie of bfloat16, and half of them of float16
    weights = torch.cat([bits, torch.tensor([-1, 2**31 - 1], dtype=torch.int32)]).view(torch.float32)
    case = torch.ones(1, 1, 1, 21, dtype=dtype), [1, 1], torch.full((1, len(weights), 1, 1, 1, 2), 0.5)
    out = torch.ops.vitdense_cpu.forward(*case, weights.view(1, -1, 1, 1, 1), width)
    finite = torch.where(weights.isinf(), torch.nan, weights)  # a weight of infinity times a share of 0
    expected = finite.to(dtype)[:, None].expand(-1, 21)
    torch.testing.assert_close(out[0], expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize('dtype', HALVES)
def test_gradients_of_values_are_summed_in_float32(dtype):
    """2000 queries on one pixel, gradients of mean twice their deviation: 16-bit sums would lose whole percents."""
    queries = 2000
    generator = torch.Generator().manual_seed(0)
    grad_output = (2 + torch.randn(1, queries, 8, generator=generator)).to(dtype)
    value, locations = torch.zeros(1, 1, 1, 8, dtype=dtype), torch.full((1, queries, 1, 1, 1, 2), 0.5)
    grads = torch.ops.vitdense_cpu.backward(grad_output, value, [1, 1], locations, torch.ones(1, queries, 1, 1, 1))
    expected = grad_output.double().sum(1).flatten()
    torch.testing.assert_close(grads[0].double().flatten(), expected, rtol=torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize('images', [1, 3])
@pytest.mark.parametrize('heads', [1, 2])
def test_any_number_of_threads_gives_the_same_bits(images, heads):
    case = make_inputs([(20, 31), (9, 8), (3, 5)], batch=images, queries=700, heads=heads, width=32)
    assert_same_in_any_threads(run, case)


def test_locations_that_no_pixel_reaches(width):
    """NaN, infinite and remote ones add nothing, have no gradient, and leave the others alone."""
    case = make_inputs(width=32, points=3, low=0.1, high=0.9)
    odd = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e30, -1e30, 2.0])
    strange = case._replace(sampling_locations=case.sampling_locations.clone())
    strange.sampling_locations[:, ::2, :, :, 1] = odd[torch.arange(7) % 6, None, None, None]
    without = case._replace(attention_weights=case.attention_weights.clone())
    without.attention_weights[:, ::2, :, :, 1] = 0
    found, expected = run(strange, width), run(without, width)
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1])
    for gradient in found[2:]:
        assert gradient.isfinite().all()
        assert not gradient[:, ::2, :, :, 1].any()


@pytest.mark.parametrize('edge', [-0.1, 1.1])
@pytest.mark.parametrize('axis', [0, 1])
def test_pixels_out_of_reach_are_not_read(width, axis, edge):
    """Only the outermost pixels are finite: corners outside are neither clamped nor multiplied by zero."""
    case = make_inputs([(4, 5), (3, 2)], width=32)
    case.sampling_locations[..., axis] = edge
    for level, hw in zip(case.value.split([20, 6], dim=1), [(4, 5), (3, 2)], strict=True):
        pixels = level.unflatten(1, hw).transpose(1, 2 - axis)
        (pixels[:, 1:] if edge < 0 else pixels[:, :-1]).fill_(torch.nan)
    assert case.value.isnan().any()
    out, _, by_locations, by_weights = run(case, width)
    assert out.isfinite().all()
    assert by_locations.isfinite().all()
    assert by_weights.isfinite().all()


@pytest.mark.parametrize('width', [3, 32])
def test_vectors_that_the_processor_does_not_have(width):
    with pytest.raises(RuntimeError, match=rf'width: expected 4, 8 or 16 up to the .*, found {width}'):
        run(make_inputs(), width)


def test_errors_name_the_argument():
    case = make_inputs()
    ops = torch.ops.vitdense_cpu
    with pytest.raises(RuntimeError, match='spatial_shapes: expected 102 pixels as in value, found 101'):
        ops.forward(case.value, [7, 11, 5, 4, 1, 3, 1, 1], *case[2:])
    with pytest.raises(RuntimeError, match='sampling_locations: its sizes do not fit'):
        ops.forward(*case[:3], case.attention_weights[:, :12].contiguous())
    with pytest.raises(RuntimeError, match='attention_weights: expected a contiguous tensor on the CPU, float32'):
        ops.forward(*case[:3], case.attention_weights.half())
