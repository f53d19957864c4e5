"""The module around multi-scale deformable attention."""

import json

import pytest
import torch
from support import SUPPORT
from support.deform_attn import LEVELS

from vitdense.ops.ms_deform_attn import MSDeformAttn

LAYOUT = SUPPORT / 'checkpoint_layouts' / 'deformable_detr_r50.json'
PIXELS = sum(h * w for h, w in LEVELS)


def make(seed=0, **arguments):
    """A module whose weights are not those of its initialisation: they would hide the weights of the queries."""
    torch.manual_seed(seed)
    module = MSDeformAttn(**{**dict(channels=32, num_heads=4, num_points=3), **arguments})
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return module


def tensors(boxes=False, queries=7):
    generator = torch.Generator().manual_seed(1)
    query, value = (torch.randn(2, n, 32, generator=generator) for n in (queries, PIXELS))
    return query, torch.rand(2, queries, len(LEVELS), 4 if boxes else 2, generator=generator), value


@pytest.fixture(params=[False, True], ids=['points', 'boxes'])
def boxes(request):
    return request.param


def padding():
    mask = torch.zeros(2, PIXELS, dtype=torch.bool)
    mask[1, 50:80] = True
    return mask


@pytest.mark.parametrize('masked', [False, True])
def test_it_is_the_module_of_transformers(boxes, masked):
    from transformers import DeformableDetrConfig
    from transformers.models.deformable_detr.modeling_deformable_detr import DeformableDetrMultiscaleDeformableAttention

    config = DeformableDetrConfig(d_model=32, num_feature_levels=len(LEVELS), disable_custom_kernels=True)
    theirs, ours = DeformableDetrMultiscaleDeformableAttention(config, num_heads=4, n_points=3), make()
    theirs.load_state_dict(ours.state_dict())
    query, reference_points, value = tensors(boxes)
    mask = padding() if masked else None
    expected = theirs(
        query,
        attention_mask=None if mask is None else ~mask,
        encoder_hidden_states=value,
        reference_points=reference_points,
        spatial_shapes=torch.tensor(LEVELS),
        spatial_shapes_list=LEVELS,
        level_start_index=None,
    )[0]
    found = ours(query, reference_points, value, LEVELS, mask)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def test_parameters_are_those_of_the_official_release():
    layout = json.loads(LAYOUT.read_text())
    prefix = 'transformer.decoder.layers.0.cross_attn.'
    official = {key.removeprefix(prefix): tuple(shape) for key, shape, _ in layout['keys'] if key.startswith(prefix)}
    assert {key: tuple(x.shape) for key, x in MSDeformAttn().state_dict().items()} == official


def test_initial_samples_lie_in_rings_and_weigh_the_same():
    module = MSDeformAttn(64, num_levels=3, num_heads=8, num_points=4)
    bias = module.sampling_offsets.bias.view(8, 3, 4, 2)
    east, south_east, south = bias[0], bias[1], bias[2]
    torch.testing.assert_close(east, torch.tensor([[1.0, 0], [2, 0], [3, 0], [4, 0]]).expand(3, -1, -1))
    torch.testing.assert_close(south_east, torch.tensor([[1.0, 1], [2, 2], [3, 3], [4, 4]]).expand(3, -1, -1))
    torch.testing.assert_close(
        south, torch.tensor([[0.0, 1], [0, 2], [0, 3], [0, 4]]).expand(3, -1, -1), rtol=0, atol=1e-6
    )
    for parameter in (module.sampling_offsets.weight, module.attention_weights.weight, module.attention_weights.bias):
        assert not parameter.any()
    bound = (6 / (64 + 64)) ** 0.5
    for linear in (module.value_proj, module.output_proj):
        assert bound * 0.95 < linear.weight.abs().max() <= bound
        assert not linear.bias.any()


def test_padding_counts_as_zero_after_the_projection():
    query, reference_points, value = tensors()
    module, mask = make(), padding()
    other = torch.where(mask[..., None], torch.full_like(value, 1e4), value)
    arguments = (LEVELS, mask)
    expected = module(query, reference_points, value, *arguments)
    assert torch.equal(module(query, reference_points, other, *arguments), expected)
    assert not torch.allclose(module(query, reference_points, value, LEVELS), expected)


@pytest.mark.parametrize('ratio', [0.5, 2])
def test_ratio_of_the_value_channels(ratio):
    module = make(value_ratio=ratio)
    assert module.value_proj.weight.shape == (32 * ratio, 32)
    assert module.output_proj.weight.shape == (32, 32 * ratio)
    assert module(*tensors(), LEVELS).shape == (2, 7, 32)


def test_locations_are_float32_under_autocast(boxes, monkeypatch):
    from vitdense.ops.ms_deform_attn import module as file

    module, seen, operator = make(), [], file.ms_deform_attn
    monkeypatch.setattr(file, 'ms_deform_attn', lambda *x: seen.append(x) or operator(*x))
    with torch.autocast('cpu', torch.bfloat16):
        out = module(*tensors(boxes), LEVELS)
    value, _, locations, weights = seen[0]
    assert (out.dtype, value.dtype) == (torch.bfloat16, torch.bfloat16)
    assert (locations.dtype, weights.dtype) == (torch.float32, torch.float32)
    assert not torch.equal(locations, locations.bfloat16().float())
    torch.testing.assert_close(weights.sum((3, 4)), torch.ones_like(weights[:, :, :, 0, 0]))


def test_half_and_double_modules(boxes):
    query, reference_points, value = tensors(boxes)
    exact = make()(query, reference_points, value, LEVELS)
    for dtype, tolerance in ((torch.bfloat16, 0.1), (torch.float64, 1e-5)):
        out = make().to(dtype)(query.to(dtype), reference_points.to(dtype), value.to(dtype), LEVELS)
        assert out.dtype == dtype
        torch.testing.assert_close(out.float(), exact, rtol=0, atol=tolerance * exact.abs().max().item())


def test_training_after_inference_mode():
    module, arguments = make(), tensors()
    with torch.inference_mode():
        module(*arguments, LEVELS)
    module(*arguments, LEVELS).sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in module.parameters())


def test_compiled_module_for_any_size(boxes):
    module = make(num_levels=1)
    graphs = []

    def count(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    def attend(query, reference_points, image):
        return module(query, reference_points, image.flatten(2).mT, [image.shape[2:]])

    torch._dynamo.reset()
    compiled = torch.compile(attend, fullgraph=True, backend=count)
    query, reference_points, _ = tensors(boxes)
    for h, w in [(5, 8), (7, 4), (11, 13), (6, 9)]:
        arguments = (query, reference_points[:, :, :1], torch.randn(2, 32, h, w))
        torch.testing.assert_close(compiled(*arguments), attend(*arguments))
    assert len(graphs) <= 2


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(reference_points=torch.rand(2, 7, 4, 3)), r'reference_points: expected .* found \(2, 7, 4, 3\)'),
        (dict(reference_points=torch.rand(2, 7, 3, 2)), r'reference_points: expected .* found \(2, 7, 3, 2\)'),
        (dict(spatial_shapes=LEVELS[:3]), 'spatial_shapes: expected 4 levels, found 3'),
        (dict(spatial_shapes=[(1, 1)] * 4), 'value: expected 4 pixels in dimension 1'),
        (dict(padding_mask=torch.zeros(2, 7, dtype=torch.bool)), r'padding_mask: expected .*, found \(2, 7\)'),
    ],
)
def test_arguments_that_do_not_fit(change, message):
    query, reference_points, value = tensors()
    arguments = dict(query=query, reference_points=reference_points, value=value, spatial_shapes=LEVELS)
    with pytest.raises(ValueError, match=message):
        make()(**{**arguments, **change})


@pytest.mark.parametrize('arguments', [dict(channels=30), dict(value_ratio=0.3)])
def test_channels_are_divided_among_heads(arguments):
    with pytest.raises(ValueError, match='channels: expected a multiple of num_heads = 4, found'):
        make(**arguments)
