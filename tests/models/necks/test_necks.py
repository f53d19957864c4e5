"""The pyramids for maps of one stride: against the formulas, against the release's names, and in detectors."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.cnn import build_norm_layer
from mmengine.registry import MODELS, init_default_scope
from support import SUPPORT
from torch.nn import functional as F

from vitdense.models.necks import SimpleFeaturePyramid

LAYOUT = SUPPORT / 'checkpoint_layouts' / 'vitdet_vit_b.json'


def layer_norm(x, state, name):
    """Over channels, written out."""
    x = x - x.mean(1, keepdim=True)
    x = x / (x.square().mean(1, keepdim=True) + 1e-6).sqrt()
    return x * state[f'{name}.weight'][:, None, None] + state[f'{name}.bias'][:, None, None]


def project(x, state, name, first):
    """The two convolutions that end every level."""
    x = layer_norm(F.conv2d(x, state[f'{name}.{first}.weight']), state, f'{name}.{first}.norm')
    x = F.conv2d(x, state[f'{name}.{first + 1}.weight'], padding=1)
    return layer_norm(x, state, f'{name}.{first + 1}.norm')


def enlarge(x, state, name):
    return F.conv_transpose2d(x, state[f'{name}.weight'], state[f'{name}.bias'], stride=2)


def formulas(x, state):
    """The five levels of ViTDet's ``SimpleFeaturePyramid`` from a map (B, C, H, W) and a state dict of the release."""
    p2 = F.gelu(layer_norm(enlarge(x, state, 'simfp_2.0'), state, 'simfp_2.1'))
    p5 = project(F.max_pool2d(x, 2), state, 'simfp_5', 1)
    return [
        project(enlarge(p2, state, 'simfp_2.3'), state, 'simfp_2', 4),
        project(enlarge(x, state, 'simfp_3.0'), state, 'simfp_3', 1),
        project(x, state, 'simfp_4', 0),
        p5,
        F.max_pool2d(p5, kernel_size=1, stride=2),
    ]


def randomised(neck: torch.nn.Module) -> torch.nn.Module:
    """With random affine parameters in the norms as well."""
    for parameter in neck.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return neck


def test_names_and_shapes_are_those_of_the_release():
    keys = json.loads(LAYOUT.read_text())['keys']
    released = {key.removeprefix('backbone.'): tuple(shape) for key, shape, _ in keys if 'simfp' in key}
    with torch.device('meta'):
        neck = SimpleFeaturePyramid(768)
    assert {key: tuple(value.shape) for key, value in neck.state_dict().items()} == released


@pytest.mark.parametrize('hw', [(2, 2), (4, 10), (64, 64)])
def test_numbers_are_those_of_the_formulas(hw):
    torch.manual_seed(0)
    neck = randomised(SimpleFeaturePyramid(24, 16).double())
    x = torch.randn(2, 24, *hw, dtype=torch.float64)
    expected = formulas(x, neck.state_dict())
    levels = neck((torch.full_like(x, torch.nan), x))  # only the last map counts
    assert len(levels) == 5
    for level, wanted in zip(levels, expected, strict=True):
        torch.testing.assert_close(level, wanted, rtol=0, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(-2, 3), st.integers(1, 4), st.integers(0, 2), st.booleans())
def test_sizes_halve_rounding_up_whatever_the_map(height, width, first, count, extra, training):
    scales = [2.0 ** (first - i) for i in range(count)]
    neck = SimpleFeaturePyramid(8, 4, scales, num_outs=count + extra).train(training)
    levels = neck((torch.randn(1, 8, height, width),))
    sizes = [(-int(-height * scale // 1), -int(-width * scale // 1)) for scale in scales]
    for _ in range(extra):
        sizes.append(tuple((side + 1) // 2 for side in sizes[-1]))
    assert [tuple(level.shape) for level in levels] == [(1, 4, *hw) for hw in sizes]
    assert all(level.isfinite().all() for level in levels)


def test_the_last_odd_row_is_not_lost():
    neck = randomised(SimpleFeaturePyramid(8, 4, num_outs=4))
    x = torch.zeros(1, 8, 5, 5, requires_grad=True)
    (neck((x,))[3] * torch.randn(1, 4, 3, 3)).sum().backward()
    assert x.grad[:, :, 4].abs().sum() > 0


def test_every_parameter_gets_a_gradient():
    neck = randomised(SimpleFeaturePyramid(8, 4))
    sum((level * torch.randn_like(level)).sum() for level in neck((torch.randn(2, 8, 4, 6),))).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in neck.parameters())


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
def test_configs_of_every_scope_name_it(scope):
    init_default_scope(scope)
    neck = MODELS.build(dict(type='vitdense.SimpleFeaturePyramid', in_channels=8, scale_factors=[2, 1], num_outs=3))
    assert [tuple(level.shape[2:]) for level in neck((torch.randn(1, 8, 3, 4),))] == [(6, 8), (3, 4), (2, 2)]


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
def test_heads_may_have_the_norm_of_the_pyramid(scope):
    init_default_scope(scope)
    _, norm = build_norm_layer(dict(type='vitdense.LayerNorm2d', eps=1e-6), 6)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(2, 6, 3, 5, dtype=torch.float64)
    torch.testing.assert_close(norm.double()(x), layer_norm(x, norm.state_dict(prefix='norm.'), 'norm'))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(scale_factors=(4, 2, 0.5)), r'scale_factors must be powers of two.* got \(4, 2, 0.5\)'),
        (dict(scale_factors=(3, 1.5)), 'scale_factors must be powers of two'),
        (dict(scale_factors=(0,)), 'scale_factors must be powers of two'),
        (dict(scale_factors=()), 'num_outs must be at least'),
        (dict(num_outs=3), r'number of scale_factors \(4, 2, 1, 0.5\), got 3'),
        (dict(in_channels=30), 'in_channels must be a multiple of scale_factors.* 4, got 30'),
    ],
)
def test_what_does_not_fit_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        SimpleFeaturePyramid(**{'in_channels': 32, **arguments})
