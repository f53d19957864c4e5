"""The values and gradients of multi-scale deformable attention, and what it says about bad input."""

import pytest
import torch
from hypothesis import given, settings
from support.deform_attn import LEVELS, by_gathers, gradients, inputs, make_inputs, pairs, smooth

from vitdense.ops.ms_deform_attn import BackendUnavailableError, ms_deform_attn, use_backend
from vitdense.ops.ms_deform_attn.backends import backend_of

few = settings(max_examples=30, deadline=None)


@pytest.fixture(params=['reference', 'cpu', pytest.param('numba', marks=pytest.mark.slow)])
def backend(request):
    with use_backend(request.param):
        try:
            backend_of(torch.zeros(1))
        except BackendUnavailableError as error:
            pytest.skip(str(error))
        yield request.param


def operator(value, spatial_shapes, sampling_locations, attention_weights):
    return ms_deform_attn(value, pairs(spatial_shapes), sampling_locations, attention_weights)


def assert_close(found, expected, tolerance=1e-5):
    """Relative to the largest magnitude of what is expected."""
    torch.testing.assert_close(
        found.double(), expected.double(), rtol=0, atol=tolerance * max(expected.abs().amax().item(), 1e-3)
    )


def assert_same_results(found, expected, case, tolerance=1e-5):
    """Output and the gradients by value, locations and weights."""
    mask = smooth(case)
    for i, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert_close(ours * mask, theirs * mask, tolerance) if i == 2 else assert_close(ours, theirs, tolerance)


@few
@given(inputs())
def test_reference_is_the_sum_over_pixels(case):
    with use_backend('reference'):
        assert_same_results(gradients(operator, case), gradients(by_gathers, case), case)


def test_it_is_what_mmcv_and_transformers_compute(backend):
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch
    from transformers.models.deformable_detr.modeling_deformable_detr import MultiScaleDeformableAttention

    case, shapes = make_inputs(), torch.tensor(LEVELS)
    ours = gradients(operator, case)
    mmcvs = multi_scale_deformable_attn_pytorch.__wrapped__
    assert_same_results(ours, gradients(lambda v, s, loc, w: mmcvs(v, shapes, loc, w), case), case)
    theirs = MultiScaleDeformableAttention()
    assert_same_results(ours, gradients(lambda v, s, loc, w: theirs(v, shapes, LEVELS, None, loc, w, 64), case), case)


@pytest.mark.parametrize('argument', [0, 2, 3])
def test_derivatives_of_the_reference(argument):
    case = make_inputs([(3, 5), (2, 4)], batch=1, queries=3, width=2).to(torch.float64)
    sizes = torch.tensor([[5, 3], [4, 2]]).view(2, 1, 2)
    pixels = case.sampling_locations * sizes
    case = case._replace(sampling_locations=(pixels.floor() + 0.6 + 0.8 * (pixels % 1)) / sizes)
    assert smooth(case).all()
    arguments = list(case)
    arguments[argument].requires_grad_()

    def function(x):
        arguments[argument] = x
        return operator(*arguments)

    assert torch.autograd.gradcheck(function, arguments[argument])


def test_centres_of_pixels_are_halves(backend):
    levels = [(2, 3), (1, 2)]
    value = torch.arange(8.0).view(1, 8, 1, 1)
    locations = torch.tensor([[0.5 / 3, 0.25], [2.5 / 3, 0.75], [1 / 3, 0.25], [0.0, 0.25], [1.0, 1.0], [0.25, 0.5]])
    levels_of = [0, 0, 0, 0, 0, 1]
    for location, level, expected in zip(locations, levels_of, [0.0, 5.0, 0.5, 0.0, 1.25, 6.0], strict=True):
        weights = torch.zeros(1, 1, 1, 2, 1)
        weights[..., level, 0] = 1
        out = ms_deform_attn(value, levels, location.expand(1, 1, 1, 2, 1, 2), weights)
        torch.testing.assert_close(out.item(), expected, rtol=1e-6, atol=1e-6)


def test_heads_levels_and_points_keep_to_themselves(backend):
    m, d = 3, 5
    value = torch.cat([torch.full((1, h * w, m, d), 10.0**i) for i, (h, w) in enumerate(LEVELS)], dim=1)
    value = value * torch.arange(1, m + 1)[:, None]
    locations = torch.full((1, 2, m, len(LEVELS), 2, 2), 0.5)
    weights = torch.tensor([1.0, 2, 3, 4])[:, None] * torch.tensor([0.25, 0.5])
    out = ms_deform_attn(value, LEVELS, locations, weights.expand(1, 2, m, -1, -1))
    expected = (1 + 20 + 300 + 4000) * 0.75 * torch.arange(1.0, m + 1)
    torch.testing.assert_close(out.view(1, 2, m, d), expected[:, None].expand(1, 2, m, d), rtol=1e-6, atol=0)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_types_are_float32_of_rounded_inputs(backend, dtype):
    case = make_inputs(width=32)
    rounded = case.to(dtype)
    exact = gradients(operator, rounded._replace(value=rounded.value.float()), case.grad_output.to(dtype))
    found = gradients(operator, rounded, case.grad_output.to(dtype))
    assert [x.dtype for x in found] == [dtype, dtype, torch.float32, torch.float32]
    step = torch.finfo(dtype).eps
    assert_same_results(found[:2], exact[:2], case, step)  # rounded once
    assert_close(found[2], exact[2])
    assert_close(found[3], exact[3])


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ('device', 'name'),
    [
        ('cpu', 'reference'),
        ('cpu', 'cpu'),
        ('cpu', 'numba'),
        ('cuda', 'reference'),
        ('cuda', 'cuda'),
        ('cuda', 'triton'),
    ],
)
def test_training_under_autocast(device, name, dtype):
    """On every device the gradients by what is in float32, of values and gradients that autocast has rounded."""
    if device == 'cuda' and not torch.cuda.is_available():
        pytest.skip('there is no GPU')
    case = make_inputs(batch=3, queries=21, heads=3, width=32)
    half = case.to(dtype)
    expected = gradients(by_gathers, half._replace(value=half.value.float()), half.grad_output)
    with use_backend(name), torch.autocast(device, dtype, enabled=dtype != torch.float32):
        try:
            backend_of(case.value.to(device, dtype))
        except BackendUnavailableError as error:
            pytest.skip(str(error))
        found = gradients(operator, case.to(device), case.grad_output)
    assert [x.dtype for x in found] == [dtype, *[torch.float32] * 3]
    step = 1e-5 if dtype == torch.float32 else torch.finfo(dtype).eps
    found = [x.cpu() for x in found]
    assert_same_results(found[:2], expected[:2], case, step)  # rounded once
    assert_close(found[2] * smooth(case), expected[2] * smooth(case))
    assert_close(found[3], expected[3])


def test_locations_are_not_rounded_to_the_type_of_the_values(backend):
    case = make_inputs([(40, 60)], low=0.1, high=0.9).to(torch.bfloat16)
    moved = case._replace(sampling_locations=case.sampling_locations.bfloat16().float())
    assert (operator(*case) - operator(*moved)).abs().max() > 0.1


def test_non_contiguous_inputs(backend):
    case = make_inputs()
    strided = case._replace(
        value=case.value.transpose(1, 2).contiguous().transpose(1, 2),
        sampling_locations=torch.stack([case.sampling_locations] * 2, dim=-1)[..., 0],
        attention_weights=case.attention_weights.mT.contiguous().mT,
    )
    assert not any(strided[i].is_contiguous() for i in (0, 2, 3))
    for ours, theirs in zip(gradients(operator, strided), gradients(operator, case), strict=True):
        assert torch.equal(ours, theirs)


def test_images_of_a_batch_are_independent(backend):
    case = make_inputs(batch=4, queries=71)
    whole = gradients(operator, case)
    for i in range(4):
        one = case._replace(**{name: getattr(case, name)[i : i + 1] for name in case._fields if name[1] != 'p'})
        for ours, theirs in zip(whole, gradients(operator, one, case.grad_output[i : i + 1]), strict=True):
            assert_close(ours[i : i + 1], theirs, 1e-6)


@pytest.mark.parametrize(('batch', 'queries'), [(0, 3), (2, 0), (96, 1)])
def test_no_images_no_queries_many_images(backend, batch, queries):
    case = make_inputs(batch=batch, queries=queries)
    out, *grads = gradients(operator, case)
    assert out.shape == (batch, queries, 16)
    assert [g.shape for g in grads] == [case[i].shape for i in (0, 2, 3)]
    if batch and queries:
        assert_close(out, by_gathers(*case))
    else:
        assert not grads[0].any()


def test_gradients_that_are_expanded_and_subsets_of_them(backend):
    case = make_inputs()
    whole = gradients(operator, case, torch.ones(()).expand(case.grad_output.shape))
    for wanted in range(1, 8):
        tensors = [case[i].clone().requires_grad_(bool(wanted >> n & 1)) for n, i in enumerate((0, 2, 3))]
        operator(tensors[0], case.spatial_shapes, *tensors[1:]).sum().backward()
        for tensor, expected in zip(tensors, whole[1:], strict=True):
            assert torch.equal(tensor.grad, expected) if tensor.requires_grad else tensor.grad is None


def test_a_second_backward_adds_up_and_a_second_derivative_is_refused(backend):
    case = make_inputs()
    value = case.value.requires_grad_()
    out = operator(*case).square().sum()
    out.backward(retain_graph=True)
    once = value.grad.clone()
    out.backward()
    assert torch.equal(value.grad, 2 * once)
    (grad,) = torch.autograd.grad(operator(*case).square().sum(), value, create_graph=True)
    with pytest.raises(NotImplementedError, match='ms_deform_attn has no second derivative'):
        grad.sum().backward()


def case_with(**changes):
    return lambda: make_inputs()._replace(**{name: change(make_inputs()) for name, change in changes.items()})


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (case_with(value=lambda c: c.value[:, :-1]), r'value: expected 102 pixels in dimension 1, .* found 101'),
        (case_with(value=lambda c: c.value[0]), r'value: expected \(B, S, M, D\), found shape \(102, 2, 8\)'),
        (case_with(value=lambda c: c.value.long()), r'value: expected a floating point type, found torch.int64'),
        (case_with(value=lambda c: c.value[..., :0]), r'value: expected at least one head and channel'),
        (case_with(spatial_shapes=lambda c: [7, 11]), r'value: expected 77 pixels in dimension 1'),
        (case_with(spatial_shapes=lambda c: [102, 1]), r'sampling_locations: expected .*\(2, 13, 2, 1, 2, 2\), found'),
        (case_with(spatial_shapes=lambda c: []), r'spatial_shapes: expected at least one level, found \[\]'),
        (case_with(spatial_shapes=lambda c: [-6, -17, *[1] * 6]), r'spatial_shapes: expected positive sizes'),
        (
            case_with(sampling_locations=lambda c: c.sampling_locations[:1]),
            r'sampling_locations: expected .*\(2, 13, 2, 4, 2, 2\), found \(1, 13, 2, 4, 2, 2\)',
        ),
        (
            case_with(sampling_locations=lambda c: c.sampling_locations.half()),
            r'sampling_locations: expected torch.float32 beside a value of torch.float32, found torch.float16',
        ),
        (
            case_with(attention_weights=lambda c: c.attention_weights[:, :, :1]),
            r'attention_weights: expected .*\(2, 13, 2, 4, 2\), found \(2, 13, 1, 4, 2\)',
        ),
        (
            case_with(value=lambda c: c.value.double()),
            r'sampling_locations: expected torch.float64 beside a value of torch.float64, found torch.float32',
        ),
    ],
)
def test_arguments_that_do_not_fit(make, message):
    case = make()
    with pytest.raises(ValueError, match=message):
        operator(*case)


@pytest.mark.parametrize('shapes', [[7, 11], [(7, 11, 1)], torch.tensor([7, 11])])
def test_shapes_are_pairs(shapes):
    case = make_inputs()
    with pytest.raises(ValueError, match=r'spatial_shapes: expected a pair \(H, W\) for each level, found '):
        ms_deform_attn(case.value, shapes, *case[2:])


def test_shapes_may_be_a_tensor(backend):
    case = make_inputs()
    assert torch.equal(ms_deform_attn(case.value, torch.tensor(LEVELS), *case[2:]), operator(*case))
