"""The contract of the backbones, by property."""

from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitdense.models.backbones import PVT, PVTv2, Swin, SwinV2
from vitdense.models.layers.drop_path import DropPath

CASES = [(PVT, 'tiny'), (PVTv2, 'b0'), (PVTv2, 'b2_li'), (Swin, 'tiny'), (SwinV2, 'tiny')]
SMALL = [(PVT, 'tiny'), (PVTv2, 'b0'), (Swin, 'tiny'), (SwinV2, 'tiny')]


def build(family, arch, **kwargs):
    """A model without parameters that are all zero, behind which nothing would count."""
    torch.manual_seed(0)
    model = family(arch, **kwargs)
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def stage_of(model, name):
    """Stage of a parameter from 1 on, 0 for the stem."""
    if name.startswith(('patch_embed.', 'patch_embed1', 'pos_embed1')):
        return 0
    return int(next(c for c in name if c.isdigit())) + isinstance(model, Swin)


def blocks_of(model):
    """Blocks by stage."""
    if isinstance(model, Swin):
        return [stage.blocks for stage in model.layers]
    return [getattr(model, f'block{stage + 1}') for stage in range(len(model.depths))]


def loss_of(maps):
    """Sum of squares with different weights; of equal weight they would be constant behind a LayerNorm."""
    return sum((m.square() * torch.linspace(0, 1, m.numel()).view_as(m)).sum() for m in maps)


@pytest.mark.parametrize(('family', 'arch'), CASES)
def test_channels_and_strides_are_those_of_the_maps(family, arch):
    model = build(family, arch).eval()
    with torch.no_grad():
        maps = model(torch.randn(1, 3, 96, 160))
    assert tuple(m.shape[1] for m in maps) == model.out_channels
    assert tuple(96 // m.shape[2] for m in maps) == model.out_strides == (4, 8, 16, 32)
    assert all(m.is_contiguous() for m in maps)


@pytest.mark.parametrize(('family', 'arch'), CASES)
@settings(max_examples=8, deadline=None)
@given(height=st.integers(1, 90), width=st.integers(1, 90))
def test_any_image_size(family, arch, height, width):
    model = build(family, arch, depths=(1, 1, 1, 1)).eval()
    with torch.no_grad():
        maps = model(torch.randn(1, 3, height, width))
    smallest = getattr(model, 'min_size', 1)
    for m, stride in zip(maps, model.out_strides, strict=True):
        for side, pixels in zip(m.shape[2:], (height, width), strict=True):
            assert max(pixels, smallest) // stride - 1 <= side <= -(-max(pixels, smallest) // stride)
            assert side >= 1
        assert m.isfinite().all()


@pytest.mark.parametrize(('family', 'arch'), CASES)
def test_layer_ids_count_the_blocks(family, arch):
    model = build(family, arch)
    ids = {name: model.layer_id(name) for name, _ in model.named_parameters()}
    assert model.num_layers == sum(model.depths)
    numbers = {
        name: number
        for number, block in enumerate(chain.from_iterable(blocks_of(model)), start=1)
        for name, parameter in model.named_parameters()
        if any(parameter is p for p in block.parameters())
    }
    assert set(numbers.values()) == set(range(1, model.num_layers + 1))
    assert all(ids[name] == number for name, number in numbers.items())
    assert {ids[name] for name in ids if stage_of(model, name) == 0} == {0}
    if isinstance(model, Swin):  # what ends a stage
        assert ids['layers.1.downsample.norm.bias'] == ids['norm1.weight'] == model.depths[0] + model.depths[1]
    else:  # what begins it
        assert ids['patch_embed3.proj.weight'] == model.depths[0] + model.depths[1] + 1
    with pytest.raises(ValueError, match='no parameter'):
        model.layer_id('decoder.weight')


@pytest.mark.parametrize(('family', 'arch'), SMALL)
@pytest.mark.parametrize('frozen', [-1, 0, 2])
def test_frozen_stages_get_no_gradient_and_stay_in_eval_mode(family, arch, frozen):
    model = build(family, arch, frozen_stages=frozen, drop_rate=0.1).train()
    sum(m.sum() for m in model(torch.randn(1, 3, 64, 64))).backward()
    for name, parameter in model.named_parameters():
        is_frozen = stage_of(model, name) <= frozen
        assert parameter.requires_grad != is_frozen, name
        assert (parameter.grad is None) == is_frozen, name
    for stage, blocks in enumerate(blocks_of(model), start=1):
        assert all(b.training == (stage > frozen) for b in blocks)
    stem = model.patch_embed if isinstance(model, Swin) else model.patch_embed1
    assert stem.training == (frozen < 0)


@pytest.mark.parametrize(('family', 'arch'), SMALL)
def test_checkpointing_changes_neither_maps_nor_gradients(family, arch):
    results = []
    for with_cp in (False, True):
        model = build(family, arch, with_cp=with_cp, drop_path_rate=0.3, drop_rate=0.1, attn_drop_rate=0.1).train()
        torch.manual_seed(1)
        maps = model(torch.ones(2, 3, 64, 96))
        loss_of(maps).backward()
        results.append(([m.detach() for m in maps], [p.grad / p.grad.norm().clamp(min=1) for p in model.parameters()]))
    for plain, recomputed in zip(results[0], results[1], strict=True):
        for a, b in zip(plain, recomputed, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize(('family', 'arch'), SMALL)
def test_frozen_backbone_has_no_randomness(family, arch):
    model = build(family, arch, frozen_stages=4, drop_rate=0.5, attn_drop_rate=0.5, drop_path_rate=0.5).train()
    image = torch.randn(1, 3, 64, 64)
    for first, second in zip(model(image), model(image), strict=True):
        assert torch.equal(first, second)


def test_images_below_the_reduction_of_a_wider_arch_are_padded():
    model = build(PVTv2, 'b0', sr_ratios=(16, 8, 4, 2)).eval()
    assert [tuple(m.shape[2:]) for m in model(torch.randn(1, 3, 20, 70))] == [(16, 18), (8, 9), (4, 5), (2, 3)]


@pytest.mark.parametrize(('family', 'arch'), SMALL)
def test_out_indices_select_maps_and_leave_later_stages_out(family, arch):
    full = build(family, arch).eval()
    image = torch.randn(1, 3, 64, 96)
    for indices in [(3,), (1, 2), (0, 3)]:
        part = build(family, arch, out_indices=indices).eval()
        part.load_state_dict({k: v for k, v in full.state_dict().items() if k in part.state_dict()})
        with torch.no_grad():
            for ours, index in zip(part(image), indices, strict=True):
                torch.testing.assert_close(ours, full(image)[index])
        assert part.out_channels == tuple(full.out_channels[i] for i in indices)
        assert max(stage_of(part, name) for name, _ in part.named_parameters()) == indices[-1] + 1


@pytest.mark.parametrize(('family', 'arch'), CASES)
def test_images_of_a_batch_do_not_touch_each_other(family, arch):
    model = build(family, arch).eval()
    images = torch.randn(3, 3, 75, 110)
    with torch.no_grad():
        for together, alone in zip(model(images), model(images[1:2]), strict=True):
            torch.testing.assert_close(together[1:2], alone)


@pytest.mark.parametrize(('family', 'arch'), CASES)
def test_every_parameter_is_used(family, arch):
    model = build(family, arch, drop_path_rate=0.0).train()
    loss_of(model(torch.randn(1, 3, 64, 64))).backward()
    unused = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not unused


def test_drop_path_keeps_or_drops_whole_samples():
    torch.manual_seed(0)
    x = torch.randn(4000, 3, 2)
    module = DropPath(0.25).train()
    ratio = module(x) / x
    kept = ratio[:, 0, 0] > 0
    torch.testing.assert_close(ratio[kept], torch.full_like(ratio[kept], 1 / 0.75))
    assert not ratio[~kept].any()
    assert abs(kept.float().mean() - 0.75) < 0.03
    assert torch.equal(module.eval()(x), x)


def test_drop_path_rates_grow_linearly_over_the_blocks():
    model = PVT('tiny', drop_path_rate=0.7)
    rates = [block.drop_path.rate for blocks in blocks_of(model) for block in blocks]
    assert rates == pytest.approx([0.1 * i for i in range(8)])


@pytest.mark.parametrize(('family', 'arch'), SMALL)
def test_compiles_without_graph_breaks(family, arch):
    model = build(family, arch).eval()
    image = torch.randn(1, 3, 64, 80)
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend='eager')(image)
        for a, b in zip(compiled, model(image), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize(('family', 'arch'), SMALL)
def test_bfloat16_autocast_is_close_to_float32(family, arch):
    model = build(family, arch).eval()
    image = torch.randn(1, 3, 64, 80)
    with torch.no_grad():
        exact = model(image)
        with torch.autocast('cpu', torch.bfloat16):
            half = model(image)
    for a, b in zip(half, exact, strict=True):
        assert (a.float() - b).norm() / b.norm() < 0.03


def test_overrides_replace_columns_of_the_table():
    model = PVTv2('b0', depths=(1, 1, 1, 1), embed_dims=(16, 32, 40, 64), num_heads=(1, 2, 5, 4), linear=True)
    assert model.out_channels == (16, 32, 40, 64)
    assert model.depths == (1, 1, 1, 1)
    assert PVTv2.ARCHS['b0'].depths == (2, 2, 2, 2)


@pytest.mark.parametrize(
    ('kwargs', 'error', 'message'),
    [
        (dict(arch='smal'), ValueError, "unknown arch 'smal': did you mean 'small'"),
        (dict(arch='tiny', dephts=(1, 1, 1, 1)), TypeError, "unknown argument 'dephts': did you mean 'depths'"),
        (dict(arch='tiny', out_indices=(0, 4)), ValueError, r'0 to 3, got \(0, 4\)'),
        (dict(arch='tiny', out_indices=(2, 1)), ValueError, 'increasing'),
        (dict(arch='tiny', out_indices=()), ValueError, 'out_indices'),
        (dict(arch='tiny', frozen_stages=5), ValueError, 'from -1 to 4, got 5'),
        (dict(arch='tiny', depths=(1, 1)), ValueError, "4 stages, got {'depths': 2"),
        (dict(arch='tiny', num_heads=(1, 2, 3, 8)), ValueError, 'multiples of num_heads'),
        (dict(arch='tiny', drop_path_rate=1.0), ValueError, r'in \[0, 1\)'),
    ],
)
def test_bad_arguments_are_named(kwargs, error, message):
    with pytest.raises(error, match=message):
        PVT(**kwargs)
