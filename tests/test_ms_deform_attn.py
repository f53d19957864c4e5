"""The operator of deformable attention, with every back end that runs here, against gathers in float64."""

import itertools
import logging
import math

import pytest
import torch
from deform_attn_cases import gathered, gradients, inputs, off_edges
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.library import opcheck

from vitdense.ops.ms_deform_attn import VARIABLE, backends, decompositions, ms_deform_attn
from vitdense.ops.ms_deform_attn.backends import NAMES, _announce, _default

DEVICES = ['cpu'] + ['cuda'] * torch.cuda.is_available()
RUNNABLE = [(device, name) for device in DEVICES for name in NAMES if backends(device)[name] is None]
HWS = [(5, 7), (3, 4), (1, 1)]
forward_op = torch.ops.vitdense.ms_deform_attn.default
backward_op = torch.ops.vitdense.ms_deform_attn_backward.default
few = settings(max_examples=30, deadline=None)


@pytest.fixture(params=RUNNABLE, ids='-'.join)
def device(request, monkeypatch) -> str:
    device, name = request.param
    monkeypatch.setenv(VARIABLE, name)
    return device


def differentiable(*tensors: torch.Tensor) -> list[torch.Tensor]:
    return [x.detach().clone().requires_grad_() for x in tensors]


def assert_near(ours: torch.Tensor, exact: torch.Tensor, tolerance: float = 1e-5) -> None:
    assert ours.shape == exact.shape
    scale = exact.abs().amax().item() if exact.numel() else 0
    torch.testing.assert_close(ours.double(), exact.double(), rtol=0, atol=tolerance * max(scale, 1e-3))


def assert_parity(hws, value, locations, weights, tolerance: float = 1e-5) -> None:
    """Output and the three gradients; ``locations`` keep a distance from the edges of the cells."""
    ours, exact = differentiable(value, locations, weights), differentiable(value, locations, weights)
    output, expected = ms_deform_attn(ours[0], hws, *ours[1:]), gathered(exact[0], hws, *exact[1:])
    assert output.dtype == value.dtype
    assert_near(output, expected, tolerance)
    for grad, expected_grad, tensor in zip(gradients(output, *ours), gradients(expected, *exact), ours, strict=True):
        assert grad.dtype == tensor.dtype
        assert_near(grad, expected_grad, tolerance)


# --- values and gradients ---


@few
@given(
    hws=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5),
    sizes=st.fixed_dictionaries(
        dict(
            batch=st.integers(1, 3),
            queries=st.integers(1, 8),
            heads=st.integers(1, 3),
            width=st.sampled_from([1, 3, 8, 16, 24, 30, 32, 64]),
            points=st.sampled_from([1, 2, 3, 8]),
            seed=st.integers(0, 99),
        )
    ),
    backend=st.sampled_from(RUNNABLE),
)
def test_values_and_gradients_are_those_of_gathers(hws, sizes, backend):
    device, name = backend
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, name)
        value, locations, weights = inputs(hws, device=device, **sizes)
        assert_parity(hws, value, off_edges(locations, hws), weights)


@pytest.mark.parametrize('which', range(3))
def test_gradients_are_those_of_finite_differences(which):
    tensors = inputs([(4, 5), (2, 3)], batch=1, queries=3, points=2, dtype=torch.float64)
    value, locations, weights = (x.clone() for x in tensors)
    locations = off_edges(locations, [(4, 5), (2, 3)])
    operands = [value, locations, weights]
    operands[which].requires_grad_()
    assert torch.autograd.gradcheck(lambda *x: ms_deform_attn(x[0], [(4, 5), (2, 3)], *x[1:]), operands)


@pytest.mark.parametrize('axis', [0, 1], ids='xy')
def test_gradients_of_locations_along_each_axis(device, axis):
    value, locations, weights = inputs(HWS, device=device)
    locations = off_edges(locations, HWS, margin=0.1)
    ours = locations.clone().requires_grad_()
    (grad,) = gradients(ms_deform_attn(value, HWS, ours, weights), ours)
    step = 1e-5
    probe = torch.zeros_like(locations)
    probe[..., axis] = step
    exact = locations.double().requires_grad_()
    high, low = (gathered(value, HWS, exact + sign * probe, weights) for sign in (1, -1))
    direction = torch.linspace(-1, 1, high.numel(), dtype=torch.float64, device=device).view_as(high)
    slope = ((high - low) * direction).sum() / (2 * step)
    assert grad[..., axis].double().sum().item() == pytest.approx(slope.item(), rel=1e-3)


@pytest.mark.parametrize('hw', [(1, 1), (1, 6), (6, 1), (4, 5)])
def test_corners_of_samples_on_borders_and_pixel_centres(device, hw):
    h, w = hw
    places = [
        [0.0, 1.0, 0.5, -0.5, 1.5, *((i + 0.5) / n for i in (-1, 0, n - 1, n)), -0.5 / n, 0.5 / n, 1 - 0.5 / n]
        for n in (w, h)
    ]
    xy = torch.tensor([*itertools.product(*places)], device=device)
    locations = xy.view(1, -1, 1, 1, 1, 2)
    value = inputs([hw], batch=1, heads=1, device=device)[0]
    weights = torch.ones(locations.shape[:-1], device=device)
    assert_near(ms_deform_attn(value, [hw], locations, weights), gathered(value, [hw], locations, weights))


@pytest.mark.parametrize('wild', [math.nan, math.inf, -math.inf, 1e30, -1e30])
@pytest.mark.parametrize('axis', [0, 1], ids='xy')
def test_a_wild_location_contributes_nothing(device, wild, axis):
    value, locations, weights = inputs(HWS, device=device)
    locations = off_edges(locations, HWS)
    absent = weights.clone()
    absent[0, 1, 1, 0, 2] = 0
    expected = gathered(value, HWS, locations, absent)
    locations[0, 1, 1, 0, 2, axis] = wild
    tensors = differentiable(value, locations, weights)
    output = ms_deform_attn(tensors[0], HWS, *tensors[1:])
    assert_near(output, expected)
    grads = gradients(output, *tensors)
    assert all(grad.isfinite().all() for grad in grads)
    assert not grads[1][0, 1, 1, 0, 2].any()
    assert grads[2][0, 1, 1, 0, 2] == 0


@pytest.mark.parametrize('poison', [math.nan, math.inf])
def test_a_pixel_that_no_sample_touches_does_not_matter(device, poison):
    hw = (3, 4)
    value, _, weights = inputs([hw], queries=2, points=2, device=device)
    locations = torch.tensor([[0.1, 0.2], [-0.2, 0.5]], device=device).expand(2, 2, 2, 1, 2, 2)
    expected = gathered(value, [hw], locations, weights)
    poisoned = value.clone()
    poisoned[:, 3::4] = poison  # the last column
    poisoned[:, 8:] = poison  # the last row
    tensors = differentiable(poisoned, locations, weights)
    output = ms_deform_attn(tensors[0], [hw], *tensors[1:])
    assert_near(output, expected)
    assert all(grad.isfinite().all() for grad in gradients(output, *tensors))


@pytest.mark.parametrize('queries', [7, 71, 313])
def test_every_image_of_a_batch_is_computed_as_alone(device, queries):
    value, locations, weights = inputs(HWS, batch=4, queries=queries, heads=3, width=8, device=device)
    together = ms_deform_attn(value, HWS, locations, weights)
    alone = [ms_deform_attn(*(value[i : i + 1], HWS), locations[i : i + 1], weights[i : i + 1]) for i in range(4)]
    assert torch.equal(together, torch.cat(alone))


def test_a_large_batch(device):
    assert_parity(HWS, *_off_edges(inputs(HWS, batch=96, queries=2, heads=1, device=device)))


def _off_edges(tensors):
    value, locations, weights = tensors
    return value, off_edges(locations, HWS), weights


def test_heads_stay_apart(device):
    value, locations, weights = inputs(HWS, heads=4, width=6, device=device)
    locations = locations.clamp(0.2, 0.8)[:, :, :, :2]
    weights = weights[:, :, :, :2] / weights[:, :, :, :2].sum((3, 4), keepdim=True)
    value = torch.arange(1.0, 5, device=device).view(4, 1).expand(2, 47, 4, 6)
    output = ms_deform_attn(value, HWS[:2], locations, weights).unflatten(2, (4, 6))
    torch.testing.assert_close(output, value[:, :1].expand(2, 5, 4, 6), rtol=1e-5, atol=0)


@pytest.mark.parametrize('empty', ['batch', 'queries', 'points', 'heads'])
def test_nothing_to_sample(device, empty):
    value, locations, weights = differentiable(*inputs(HWS, device=device, **{empty: 0}))
    output = ms_deform_attn(value, HWS, locations, weights)
    assert output.shape == (len(value), locations.shape[1], value.shape[2] * 4)
    assert not output.any()
    assert not any(grad.any() for grad in gradients(output, value, locations, weights))


def test_views_that_are_not_contiguous_or_not_aligned(device):
    value, locations, weights = _off_edges(inputs(HWS, width=8, device=device))
    padded = torch.cat([torch.zeros(1, device=device), value.flatten()])
    views = [
        value.transpose(1, 2).contiguous().transpose(1, 2),
        padded[1:].view_as(value),
        torch.cat([value, value], dim=3)[..., 8:],
    ]
    for view in views:
        turned = locations.transpose(1, 3).contiguous().transpose(1, 3), weights.flip(1).contiguous().flip(1)
        assert_parity(HWS, view, *turned)
        assert torch.equal(ms_deform_attn(view, HWS, *turned), ms_deform_attn(value, HWS, locations, weights))


def test_expanded_gradient_of_the_output(device):
    tensors = differentiable(*_off_edges(inputs(HWS, device=device)))
    ours = torch.autograd.grad(ms_deform_attn(tensors[0], HWS, *tensors[1:]).sum(), tensors)
    exact = torch.autograd.grad(gathered(tensors[0], HWS, *tensors[1:]).sum(), tensors)
    for grad, expected in zip(ours, exact, strict=True):
        assert_near(grad, expected)


@pytest.mark.parametrize('needed', [n for n in itertools.product([False, True], repeat=3) if any(n)])
def test_each_subset_of_gradients(device, needed):
    tensors = inputs(HWS, device=device)
    whole = differentiable(*tensors)
    expected = gradients(ms_deform_attn(whole[0], HWS, *whole[1:]), *whole)
    some = [x.clone().requires_grad_(need) for x, need in zip(tensors, needed, strict=True)]
    output = ms_deform_attn(some[0], HWS, *some[1:])
    direction = torch.linspace(-1, 1, output.numel(), device=device).view_as(output)
    for _ in range(2):  # the graph can be walked again
        output.backward(direction, retain_graph=True)
    for x, need, grad in zip(some, needed, expected, strict=True):
        if need:
            torch.testing.assert_close(x.grad, 2 * grad)
        else:
            assert x.grad is None


def test_second_derivatives_are_refused(device):
    value, locations, weights = differentiable(*inputs(HWS, device=device))
    (grad,) = torch.autograd.grad(ms_deform_attn(value, HWS, locations, weights).sum(), locations, create_graph=True)
    with pytest.raises(NotImplementedError, match='ms_deform_attn has first derivatives only'):
        torch.autograd.grad(grad.sum(), weights)


# --- half types ---

HALF = {torch.float16: 2**-10, torch.bfloat16: 2**-7}  # a unit in the last place, relative


@pytest.mark.parametrize('dtype', HALF)
def test_half_values_are_computed_in_float32_and_rounded_once(device, dtype):
    value, locations, weights = _off_edges(inputs(HWS, dtype=dtype, device=device))
    tensors, exact = differentiable(value, locations, weights), differentiable(value.float(), locations, weights)
    output, expected = ms_deform_attn(tensors[0], HWS, *tensors[1:]), gathered(exact[0], HWS, *exact[1:])
    assert output.dtype == dtype
    torch.testing.assert_close(output.double(), expected, rtol=HALF[dtype] / 2 * 1.01, atol=1e-6)
    direction = torch.linspace(-1, 1, output.numel(), device=device).view_as(output).to(dtype)
    grads = torch.autograd.grad(output, tensors, direction)
    expected = torch.autograd.grad(expected, exact, direction.double())
    assert [grad.dtype for grad in grads] == [dtype, torch.float32, torch.float32]
    torch.testing.assert_close(grads[0].float(), expected[0], rtol=HALF[dtype] / 2 * 1.01, atol=1e-6)
    for grad, wanted in zip(grads[1:], expected[1:], strict=True):
        assert_near(grad, wanted)


@pytest.mark.parametrize('dtype', HALF)
def test_gradients_of_half_values_are_summed_in_float32(device, dtype):
    queries = 2000
    value = torch.randn(1, 1, 1, 8, device=device).to(dtype).requires_grad_()
    locations = torch.full((1, queries, 1, 1, 1, 2), 0.5, device=device)
    weights = torch.ones(1, queries, 1, 1, 1, device=device)
    grad = torch.randn(1, queries, 8, device=device, generator=torch.Generator(device).manual_seed(0)) + 2
    grad = grad.to(dtype)
    ms_deform_attn(value, [(1, 1)], locations, weights).backward(grad)
    expected = grad.double().sum(1).flatten()
    assert ((value.grad.flatten().double() - expected) / expected).abs().max() < 0.01


def test_locations_are_not_rounded_to_the_type_of_the_value(device):
    hws = [(50, 84)]
    value, locations, weights = inputs(hws, dtype=torch.bfloat16, queries=50, device=device)
    exact = gathered(value, hws, locations, weights)
    rounded = gathered(value, hws, locations.bfloat16(), weights)
    output = ms_deform_attn(value, hws, locations, weights)
    assert (output - exact).abs().mean() < 0.05 * (rounded - exact).abs().mean()


@pytest.mark.parametrize('dtype', HALF)
def test_autocast_casts_the_value_only(device, dtype):
    tensors = differentiable(*inputs(HWS, device=device))
    with torch.autocast(device, dtype=dtype):
        output = ms_deform_attn(tensors[0], HWS, *tensors[1:])
        halves = ms_deform_attn(tensors[0].to(dtype), HWS, tensors[1].half(), tensors[2].bfloat16())
    assert output.dtype == halves.dtype == dtype
    assert torch.equal(output, ms_deform_attn(tensors[0].to(dtype), HWS, *tensors[1:]))
    assert not torch.equal(output, halves)
    grads = gradients(output, *tensors)
    assert all(grad.dtype == torch.float32 and grad.any() for grad in grads)
    with torch.autocast(device, dtype=dtype, enabled=False):
        assert ms_deform_attn(tensors[0], HWS, *tensors[1:]).dtype == torch.float32


def test_autocast_leaves_float64():
    value, locations, weights = inputs(HWS, dtype=torch.float64)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        output = ms_deform_attn(value, HWS, locations, weights)
    assert_near(output, gathered(value, HWS, locations, weights), 1e-12)


# --- compilers and exporters ---


def test_opcheck(device):
    value, locations, weights = inputs(HWS, device=device)
    flat = [size for hw in HWS for size in hw]
    grad = torch.randn(2, 5, 8, device=device)
    opcheck(forward_op, (*differentiable(value), flat, *differentiable(locations, weights)))
    opcheck(forward_op, (value.transpose(0, 1).contiguous().transpose(0, 1), flat, locations, weights))
    opcheck(backward_op, (grad, value, flat, locations, weights))


def pyramid(images, locations, weights):
    """Maps of several sizes as values of two heads, as a model makes them."""
    hws = [tuple(image.shape[2:]) for image in images]
    tokens = torch.cat([image.flatten(2).transpose(1, 2) for image in images], dim=1)
    return ms_deform_attn(tokens.unflatten(2, (2, -1)), hws, locations, weights).sin()


def pyramid_inputs(size: int, queries: int = 5):
    images = [torch.randn(2, 8, size + level, 2 * size - level) for level in range(2)]
    _, locations, weights = inputs([(1, 1)] * 2, queries=queries)
    return images, locations, weights


def test_compiled_for_five_image_sizes_at_most_twice(monkeypatch):
    monkeypatch.setenv(VARIABLE, 'reference')
    torch._dynamo.reset()
    compilations = []

    def backend(graph, example_inputs):
        compilations.append(graph)
        return graph.forward

    compiled = torch.compile(pyramid, fullgraph=True, backend=backend)
    for size in (4, 5, 7, 9, 12):
        arguments = pyramid_inputs(size, queries=size + 2)
        torch.testing.assert_close(compiled(*arguments), pyramid(*arguments))
    assert len(compilations) <= 2


def test_compiled_gradients(monkeypatch):
    monkeypatch.setenv(VARIABLE, 'reference')
    torch._dynamo.reset()
    compiled = torch.compile(pyramid, fullgraph=True, backend='aot_eager', dynamic=True)
    for size in (4, 6):
        images, locations, weights = pyramid_inputs(size)
        leaves = [x.requires_grad_() for x in (*images, locations, weights)]
        expected = gradients(pyramid(images, locations, weights), *leaves)
        for grad, wanted in zip(gradients(compiled(images, locations, weights), *leaves), expected, strict=True):
            torch.testing.assert_close(grad, wanted)


class Pyramid(torch.nn.Module):
    def forward(self, images, locations, weights):
        return pyramid(images, locations, weights)


def test_exported_with_dynamic_sizes_as_operator_and_as_grid_sample():
    example, other = pyramid_inputs(6), pyramid_inputs(9)
    dynamic = ([{2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}] * 2, None, None)
    program = torch.export.export(Pyramid(), example, dynamic_shapes=dynamic)
    assert forward_op in {node.target for node in program.graph.nodes}
    torch.testing.assert_close(program.module()(*other), pyramid(*other))
    plain = program.run_decompositions({**torch.export.default_decompositions(), **decompositions()})
    namespaces = {node.target.namespace for node in plain.graph.nodes if isinstance(node.target, torch._ops.OpOverload)}
    assert namespaces == {'aten'}
    torch.testing.assert_close(plain.module()(*other), pyramid(*other))


# --- sizes and bad input ---


def test_sizes_as_a_tensor():
    value, locations, weights = inputs(HWS)
    expected = ms_deform_attn(value, HWS, locations, weights)
    for sizes in (torch.tensor(HWS), torch.tensor(HWS, dtype=torch.int32), [list(hw) for hw in HWS]):
        assert torch.equal(ms_deform_attn(value, sizes, locations, weights), expected)


@pytest.mark.parametrize(
    ('sizes', 'error', 'message'),
    [
        ([(5, 7), (3, 4), (1, 2)], ValueError, r'spatial_shapes: expected levels of N = 48 .* found 49 in \[\(5, 7\)'),
        ([(5, 7), (3, 4)], ValueError, r'sampling_locations: expected \(2, 5, 2, 2, 3, 2\) .*found \(2, 5, 2, 3, 3, 2\)'),
        ([(5, 7), (3, 4), (-1, -1)], ValueError, r'spatial_shapes: expected positive sizes, found \(-1, -1\)'),
        ([], ValueError, 'spatial_shapes: expected at least one level, found none'),
        ([5, 7, 3, 4, 1, 1], ValueError, r'spatial_shapes: expected a pair \(H, W\) for every level, found 5'),
        ([(5, 7, 1)], ValueError, r'spatial_shapes: expected a pair \(H, W\) for every level, found \(5, 7, 1\)'),
        ([(5.0, 7), (3, 4), (1, 1)], TypeError, 'spatial_shapes: expected ints, found'),
        (torch.tensor([5, 7]), ValueError, r'spatial_shapes: expected an integer tensor \(L, 2\), found \(2,\)'),
        (torch.ones(3, 2), ValueError, r'spatial_shapes: expected an integer tensor .*float32'),
    ],
)
def test_bad_sizes(sizes, error, message):
    value, locations, weights = inputs(HWS)
    with pytest.raises(error, match=message):
        ms_deform_attn(value, sizes, locations, weights)


@pytest.mark.parametrize(
    ('change', 'error', 'message'),
    [
        (lambda v, x, w: (v[0], x, w), ValueError, r'value: expected \(B, N, M, D\), found \(48, 2, 4\)'),
        (lambda v, x, w: (v[:1], x, w), ValueError, r'sampling_locations: expected \(1, 5, 2, 3, 3, 2\) to fit value'),
        (lambda v, x, w: (v[:, :, :1], x, w), ValueError, r'sampling_locations: expected \(2, 5, 1, 3, 3, 2\)'),
        (lambda v, x, w: (v, x[..., :1], w), ValueError, r'sampling_locations: expected \(B, Q, M, L, P, 2\), found'),
        (lambda v, x, w: (v, x, w[:, :4]), ValueError, r'attention_weights: expected \(2, 5, 2, 3, 3\).* found \(2, 4,'),
        (lambda v, x, w: (v, x, w[..., :2]), ValueError, r'attention_weights: .* found \(2, 5, 2, 3, 2\)'),
        (lambda v, x, w: (v, x, w[..., None]), ValueError, r'attention_weights: .* found \(2, 5, 2, 3, 3, 1\)'),
        (lambda v, x, w: (v.int(), x, w), TypeError, r'value: expected one of torch.float32, .* found torch.int32'),
        (lambda v, x, w: (v.half(), x.half(), w), TypeError, r'sampling_locations: expected torch.float32 with a value of'),
        (lambda v, x, w: (v, x, w.double()), TypeError, r'attention_weights: expected torch.float32 .* torch.float64'),
        (lambda v, x, w: (v.double(), x, w), TypeError, r'sampling_locations: expected torch.float64 with a value of'),
        (lambda v, x, w: (v, x.to('meta'), w), ValueError, r'sampling_locations: expected device cpu, .* found meta'),
    ],
)
def test_tensors_that_do_not_fit(change, error, message):
    value, locations, weights = change(*inputs(HWS))
    with pytest.raises(error, match=message):
        ms_deform_attn(value, HWS, locations, weights)


def test_a_gradient_that_does_not_fit():
    value, locations, weights = inputs([(2, 2)])
    for grad, error in ((torch.ones(2, 5, 9), ValueError), (torch.ones(2, 5, 8).half(), TypeError)):
        with pytest.raises(error, match='grad_output: expected'):
            backward_op(grad, value, [2, 2], locations, weights)


# --- choice of the back end ---


def test_what_runs_where():
    on_cpu, on_cuda = backends('cpu'), backends(torch.device('cuda'))
    assert list(on_cpu) == ['cpu', 'cuda', 'triton', 'reference']
    assert on_cpu['reference'] is None
    assert on_cuda['reference'] is None
    assert on_cpu['cuda']
    assert on_cuda['cpu']


@pytest.mark.parametrize('name', ['cuda', 'triton'])
def test_a_forced_back_end_that_cannot_run_says_why(monkeypatch, name):
    monkeypatch.setenv(VARIABLE, name)
    problem = backends('cpu')[name]
    if problem is None:
        pytest.skip(f'{name} runs here')
    value, locations, weights = inputs(HWS)
    with pytest.raises(RuntimeError) as error:
        ms_deform_attn(value, HWS, locations, weights)
    text = str(error.value)
    assert problem in text
    assert text.startswith(f'{VARIABLE}={name} forces a back end that cannot compute torch.float32 on cpu: ')


def test_a_forced_back_end_that_does_not_exist(monkeypatch):
    monkeypatch.setenv(VARIABLE, 'fast')
    with pytest.raises(ValueError, match=f'{VARIABLE}=fast: expected one of cpu, cuda, triton, reference'):
        ms_deform_attn(inputs(HWS)[0], HWS, *inputs(HWS)[1:])


def test_float64_is_left_to_the_reference(device, monkeypatch):
    value, locations, weights = inputs(HWS, dtype=torch.float64, device=device)
    monkeypatch.delenv(VARIABLE)
    assert_near(ms_deform_attn(value, HWS, locations, weights), gathered(value, HWS, locations, weights), 1e-12)
    if backends(device)['cpu'] is None:
        monkeypatch.setenv(VARIABLE, 'cpu')
        with pytest.raises(RuntimeError, match='float64 is computed by the reference only'):
            ms_deform_attn(value, HWS, locations, weights)


def test_the_choice_is_told_once(monkeypatch, caplog):
    monkeypatch.delenv(VARIABLE, raising=False)
    _default.cache_clear()
    _announce.cache_clear()
    with caplog.at_level(logging.INFO, 'vitdense'):
        for _ in range(3):
            ms_deform_attn(inputs(HWS)[0], HWS, *inputs(HWS)[1:])
    told = [record.getMessage() for record in caplog.records if 'deformable attention on cpu' in record.getMessage()]
    assert len(told) == 1
    best = next(name for name in ('cpu', 'reference') if backends('cpu')[name] is None)
    assert f'back end {best}' in told[0]


def test_no_fallback_from_a_back_end_that_fails(monkeypatch):
    from vitdense.ops.ms_deform_attn import reference

    def fails(*args):
        raise RuntimeError('it broke')

    monkeypatch.setenv(VARIABLE, 'reference')
    monkeypatch.setattr(reference, 'forward', fails)
    with pytest.raises(RuntimeError, match='it broke'):
        ms_deform_attn(inputs(HWS)[0], HWS, *inputs(HWS)[1:])


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_deterministic_mode_refuses_the_backward_on_cuda():
    tensors = differentiable(*inputs(HWS, device='cuda'))
    output = ms_deform_attn(tensors[0], HWS, *tensors[1:]).sum()
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(RuntimeError, match='adds in no fixed order'):
            output.backward(retain_graph=True)
        torch.use_deterministic_algorithms(True, warn_only=True)
        with pytest.warns(UserWarning, match='adds in no fixed order'):
            output.backward()
    finally:
        torch.use_deterministic_algorithms(False)
