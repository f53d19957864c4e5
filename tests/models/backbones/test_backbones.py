"""The contract of the backbones, by property."""

import math
import re
from itertools import accumulate, chain
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.analysis import get_model_complexity_info
from support.backbones import image, kept, products
from timm.layers import DropPath
from timm.models.resnetv2 import Bottleneck
from torch.utils.flop_counter import FlopCounterMode

from vitdense.models.backbones import PVT, YOLOS, HybridViT, PVTv2, Swin, SwinV2, ViT, ViTAdapter
from vitdense.models.backbones.base import Backbone

NARROW = dict(depths=(1, 2, 1, 1), embed_dims=(16, 32, 40, 64), num_heads=(1, 2, 5, 4))
NARROW_SWIN = dict(arch='tiny', depths=(1, 2, 1, 1), embed_dims=16, num_heads=(1, 2, 4, 8))
NARROW_VIT = dict(arch='tiny', depth=4, embed_dims=48, num_heads=3, img_size=48, out_indices=(0, 1, 2, 3))
NARROW_YOLOS = dict(arch='small', depth=4, embed_dims=48, num_heads=3, img_size=(32, 48), det_tokens=5)
NARROW_HYBRID = dict(NARROW_VIT, arch='base', depth=1, layers=(1, 2, 1))
NARROW_ADAPTER = dict(NARROW_VIT, conv_inplane=8)
WINDOWS = dict(class_token=False, rel_pos='decomposed', window_size=3, global_blocks=(1,))
AS_DETECTOR = dict(window_size=3, global_blocks=(1,), layer_scale=0.1, add_vit_feature='last')


class Case(NamedTuple):
    """A small model of four stages, and what it says of its outputs."""

    family: type[Backbone]
    options: dict
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    depths: tuple[int, ...] = (1, 1, 1, 1)

    def build(self, **changes) -> Backbone:
        """The model without parameters that are all zero, behind which nothing would count."""
        torch.manual_seed(0)
        model = self.family(**{**self.options, **changes})
        for parameter in model.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
        return model


PYRAMID = (4, 8, 16, 32)
CASES = {
    'PVT': Case(PVT, dict(arch='tiny', **NARROW), (16, 32, 40, 64), PYRAMID),
    'PVTv2': Case(PVTv2, dict(arch='b0', **NARROW), (16, 32, 40, 64), PYRAMID),
    'PVTv2-linear': Case(PVTv2, dict(arch='b2_li', **NARROW), (16, 32, 40, 64), PYRAMID),
    'Swin': Case(Swin, NARROW_SWIN, (16, 32, 64, 128), PYRAMID),
    'SwinV2': Case(SwinV2, NARROW_SWIN, (16, 32, 64, 128), PYRAMID),
    'ViT': Case(ViT, dict(NARROW_VIT, patch_size=8), (48,) * 4, (8,) * 4),
    'DeiT': Case(ViT, dict(NARROW_VIT, dist_token=True, reg_tokens=2, layer_scale=0.1), (48,) * 4, (16,) * 4),
    'BEiT': Case(ViT, dict(NARROW_VIT, pos_embed=None, rel_pos='bias_table', layer_scale=0.1), (48,) * 4, (16,) * 4),
    'ViTDet': Case(ViT, dict(NARROW_VIT, pos_resize='bicubic', **WINDOWS), (48,) * 4, (16,) * 4),
    'HybridViT': Case(HybridViT, NARROW_HYBRID, (64, 256, 512, 48), (2, 4, 8, 16), depths=(0, 1, 2, 2)),
    'ViTAdapter': Case(ViTAdapter, NARROW_ADAPTER, (48,) * 4, PYRAMID),
    'ViTAdapter-windows': Case(ViTAdapter, dict(NARROW_ADAPTER, **AS_DETECTOR), (48,) * 4, PYRAMID),
    'YOLOS': Case(YOLOS, NARROW_YOLOS, (48,), (16,)),
    'YOLOS-tiny': Case(YOLOS, dict(NARROW_YOLOS, mid_pos_embed=False, layer_scale=0.1), (48,), (16,)),
}
FREEZING = {name: case for name, case in CASES.items() if case.family is not ViTAdapter}  # which always trains in part
WITH_MAPS = {name: case for name, case in CASES.items() if case.family is not YOLOS}
every_case = pytest.mark.parametrize('case', CASES.values(), ids=CASES)
every_case_with_maps = pytest.mark.parametrize('case', WITH_MAPS.values(), ids=WITH_MAPS)


def stage_of(model, name):
    """Stage of a parameter from 1 on, 0 for the stem, 5 for what is new beside a pretrained network."""
    if isinstance(model, ViTAdapter) and re.match(r'spm\.|interactions\.|level_embed|up\.|norm\d', name):
        return 5
    if isinstance(model, HybridViT):
        found = re.match(r'patch_embed\.backbone\.stages\.([01])|patch_embed\.backbone\.(stem)', name)
        return (0 if found[2] else int(found[1]) + 2) if found else 4
    if re.match(r'(patch|pos)_embed1?\b|\w+_token', name):
        return 0
    if name == 'mid_pos_embed':  # its last table follows the third block
        return 3
    if name.startswith('norm.'):
        return 4
    number = int(re.search(r'\d', name)[0])
    return number if isinstance(model, (PVT, PVTv2)) else number + 1


def blocks_of(model):
    """Blocks by stage."""
    if isinstance(model, HybridViT):
        convs = [stage.blocks for stage in model.patch_embed.backbone.stages]
        return [[], *convs[:2], [*chain(*convs[2:]), *model.blocks]]
    if isinstance(model, ViT):
        return [[block] for block in model.blocks]
    if isinstance(model, Swin):
        return [stage.blocks for stage in model.layers]
    return [getattr(model, f'block{stage + 1}') for stage in range(len(model.depths))]


def rates_of(model):
    """Rates of stochastic depth by block; the bottlenecks of a ResNet have none."""
    return [b.drop_path.drop_prob for b in chain.from_iterable(blocks_of(model)) if not isinstance(b, Bottleneck)]


def shapes_of(case, model, height, width):
    """Shapes of the outputs for an image of this size."""
    if case.family is YOLOS:
        return [(1, 5, 48)]
    smallest, rounded = getattr(model, 'min_size', 1), math.floor if case.family is PVT else math.ceil
    sides = [max(side, smallest) for side in (height, width)]
    return [(1, c, *(rounded(side / s) for side in sides)) for c, s in zip(case.channels, case.strides, strict=True)]


def loss_of(outputs):
    """Sum of squares with different weights; of equal weight they would be constant behind a LayerNorm."""
    return sum((x.square() * torch.linspace(0, 1, x.numel()).view_as(x)).sum() for x in outputs)


@every_case
def test_channels_strides_and_depths_are_stated(case):
    """Those of the overrides, which leave the table as it is."""
    model = case.build()
    assert (model.out_channels, model.out_strides) == (case.channels, case.strides)
    assert model.depths == case.options.get('depths', case.depths)
    assert case.family.ARCHS[case.options['arch']] != model.arch


@every_case
@settings(max_examples=8, deadline=None)
@given(height=st.integers(1, 100), width=st.integers(1, 100))
def test_any_image_size(case, height, width):
    model = case.build().eval()
    with torch.no_grad():
        outputs = model(image((height, width)))
    assert [tuple(x.shape) for x in outputs] == shapes_of(case, model, height, width)
    assert all(x.isfinite().all() and x.is_contiguous() for x in outputs)


def test_images_below_the_reduction_of_a_wider_arch_are_padded():
    model = PVTv2('b0', sr_ratios=(16, 8, 4, 2)).eval()
    assert [tuple(m.shape[2:]) for m in model(image((20, 70)))] == [(16, 18), (8, 9), (4, 5), (2, 3)]


@every_case
def test_images_of_a_batch_do_not_touch_each_other(case):
    model = case.build().eval()
    images = image((75, 110), batch=3)
    with torch.no_grad():
        for together, alone in zip(model(images), model(images[1:2]), strict=True):
            torch.testing.assert_close(together[1:2], alone)


@every_case
def test_layer_ids_count_the_blocks(case):
    """What else a stage has counts to its first block if it leads there, and to its last one otherwise."""
    model = case.build()
    numbered = enumerate(chain.from_iterable(blocks_of(model)), start=1)
    numbers = {parameter: number for number, block in numbered for parameter in block.parameters()}
    assert set(numbers.values()) == set(range(1, model.num_layers + 1))
    ends = [0, *accumulate(model.depths), model.num_layers + 1]
    for name, parameter in model.named_parameters():
        stage = stage_of(model, name)
        leads = stage > 0 and re.match(r'(patch|pos)_embed\d', name)
        other = ends[stage - 1] + 1 if leads else ends[stage]
        assert model.layer_id(name) == numbers.get(parameter, other), name
    with pytest.raises(ValueError, match=r"no parameter 'head\.weight'"):
        model.layer_id('head.weight')


@every_case
@pytest.mark.parametrize('frozen', [-1, 0, 1, 2, 3])
def test_frozen_stages_get_no_gradient_and_stay_in_eval_mode(case, frozen):
    model = case.build(frozen_stages=frozen, drop_rate=0.1).train()
    sum(x.sum() for x in model(image((64, 64)))).backward()
    for name, parameter in model.named_parameters():
        is_frozen = stage_of(model, name) <= frozen
        assert parameter.requires_grad != is_frozen, name
        assert (parameter.grad is None) == is_frozen, name
    for stage, blocks in enumerate(blocks_of(model), start=1):
        assert all(b.training == (stage > frozen) for b in blocks)
    stem = model.patch_embed1 if isinstance(model, (PVT, PVTv2)) else model.patch_embed
    stem = stem.backbone.stem if isinstance(model, HybridViT) else stem
    assert stem.training == (frozen < 0)


@pytest.mark.parametrize('case', FREEZING.values(), ids=FREEZING)
def test_frozen_backbone_has_no_randomness(case):
    model = case.build(frozen_stages=4, drop_rate=0.5, attn_drop_rate=0.5, drop_path_rate=0.5).train()
    assert not any(parameter.requires_grad for parameter in model.parameters())
    for first, second in zip(model(image((64, 64))), model(image((64, 64))), strict=True):
        assert torch.equal(first, second)


@every_case
def test_every_parameter_is_used(case):
    model = case.build(drop_path_rate=0.0).train()
    loss_of(model(image((64, 64)))).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]


@every_case
@pytest.mark.parametrize('rate', [0.0, 0.1])
def test_checkpointing_recomputes_blocks_and_changes_neither_outputs_nor_gradients(case, rate):
    runs, products = [], []
    for with_cp in (False, True):
        model = case.build(with_cp=with_cp, drop_path_rate=3 * rate, drop_rate=rate, attn_drop_rate=rate).train()
        for block in chain.from_iterable(blocks_of(model)):
            last = block.conv3 if isinstance(block, Bottleneck) else block.attn.proj
            last.register_forward_hook(lambda *_: products.append(1))
        torch.manual_seed(1)
        outputs = model(torch.ones(2, 3, 64, 96))
        loss_of(outputs).backward()
        gradients = [p.grad / p.grad.norm().clamp(min=1) for p in model.parameters()]
        runs.append([*(x.detach() for x in outputs), *gradients])
    assert len(products) == (1 + 2) * model.num_layers
    for plain, recomputed in zip(*runs, strict=True):
        torch.testing.assert_close(plain, recomputed, rtol=0, atol=1e-6)


@every_case
@pytest.mark.parametrize('rate', [0.0, 0.1])
def test_light_checkpointing_keeps_less_and_changes_no_bit(case, rate):
    runs, sizes = [], []
    for with_cp in (False, 'light'):
        model = case.build(with_cp=with_cp, drop_path_rate=3 * rate, drop_rate=rate, attn_drop_rate=rate).train()
        torch.manual_seed(1)
        with kept(sizes):
            outputs = model(image((64, 96)))
        loss_of(outputs).backward()
        runs.append([*outputs, *(p.grad for p in model.parameters()), torch.rand(1)])
    assert all(torch.equal(plain, light) for plain, light in zip(*runs, strict=True))
    share = 1 if case.family is HybridViT else 0.8  # most of it is of a ResNet
    assert sizes[1] < share * sizes[0]


@every_case
def test_light_checkpointing_computes_no_second_product_again(case):
    calls = []
    model = case.build(with_cp='light').train()
    for name, module in model.named_modules():
        if name.endswith(('.fc1', '.fc2', '.proj')) and isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda *_, name=name: calls.append(name))
    outputs = model(image((64, 96)))
    forward = len(calls)
    loss_of(outputs).backward()
    again = calls[forward:]
    assert sorted(again) == sorted(name for name in calls[:forward] if name.endswith('.mlp.fc1') or '.ffn.fc1' in name)


@pytest.mark.parametrize('cls', [PVT, Swin, ViT])
@pytest.mark.parametrize('value', ['heavy', 'True', 2, None, ['light']])
def test_another_amount_of_checkpointing_is_refused(cls, value):
    arch = dict(PVT='tiny', Swin='tiny', ViT='base')[cls.__name__]
    with pytest.raises(ValueError, match=re.escape(f"with_cp: expected False, 'light' or True, found {value!r}")):
        cls(arch, with_cp=value)


@every_case
def test_no_product_with_weights_is_computed_twice_unless_checkpointing_asks_for_it(case, monkeypatch):
    calls = products(monkeypatch)
    for with_cp in (False, True):
        loss = loss_of(case.build(with_cp=with_cp).train()(image((64, 96))))
        forward = len(calls)
        loss.backward()
        assert forward > 0
        assert (len(calls) > forward) == with_cp


@every_case
@pytest.mark.parametrize('out_indices', [(0, 1, 2, 3), (0, 1)])
def test_nothing_is_built_and_thrown_away(case, out_indices, monkeypatch):
    built, register = [], torch.nn.Module.register_parameter

    def keep(module, name, parameter):
        built.append(parameter)
        register(module, name, parameter)

    monkeypatch.setattr(torch.nn.Module, 'register_parameter', keep)
    model = case.build() if case.family is YOLOS else case.build(out_indices=out_indices)
    used = {id(parameter) for parameter in model.parameters()}
    assert [tuple(parameter.shape) for parameter in built if parameter is not None and id(parameter) not in used] == []


@every_case_with_maps
def test_out_indices_select_maps_and_leave_later_stages_out(case):
    full = case.build(drop_path_rate=0.3).eval()
    rates = rates_of(full)
    with torch.no_grad():
        maps = full(image((64, 96)))
    for indices in [(3,), (1, 2), (0, 2), (0, 3)]:
        part = case.build(drop_path_rate=0.3, out_indices=indices).eval()
        part.load_state_dict({k: v for k, v in full.state_dict().items() if k in part.state_dict()})
        with torch.no_grad():
            torch.testing.assert_close(part(image((64, 96))), tuple(maps[i] for i in indices))
        assert part.out_channels == tuple(full.out_channels[i] for i in indices)
        assert part.out_strides == tuple(full.out_strides[i] for i in indices)
        built = 5 if case.family is ViTAdapter else indices[-1] + 1
        assert max(stage_of(part, name) for name, _ in part.named_parameters()) == built
        own = rates_of(part)
        assert own == rates[: len(own)]


@pytest.mark.slow
@every_case
def test_compiles_without_graph_breaks(case):
    model = case.build().eval()
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend='eager')(image((64, 80)))
        torch.testing.assert_close(compiled, model(image((64, 80))))


@every_case
def test_a_trace_is_that_of_its_image_size_whatever_ran_before(case):
    """At another size it computes the same, or fails."""
    model, size = case.build().eval(), (64, 80)
    with torch.no_grad():
        model(image(size))
        traced = torch.jit.trace(model, image(size), check_trace=False)
        torch.testing.assert_close(traced(2 * image(size)), model(2 * image(size)))
        for other in [(96, 64), (70, 50), (33, 31)]:
            try:
                found = traced(image(other))
            except RuntimeError:
                continue
            torch.testing.assert_close(found, model(image(other)))


@every_case
def test_mmengine_counts_the_products_with_weights(case):
    """And norms, which PyTorch does not count; neither of them counts the attention of :func:`torch.nn.functional`."""
    model = case.build().eval().requires_grad_(False)
    found = get_model_complexity_info(model, (3, 64, 80), show_table=False, show_arch=False)
    assert found['params'] == sum(p.numel() for p in model.parameters())
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model.to('meta')(image((64, 80)).to('meta'))
    counts = {str(op): flops // 2 for op, flops in counter.get_flop_counts()['Global'].items()}
    products = sum(flops for op, flops in counts.items() if re.search(r'conv|addmm|\bmm\b', op))
    assert products <= found['flops'] < 1.2 * products


@every_case
@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float16, 5e-3), (torch.bfloat16, 4e-2), (torch.float64, 1e-5)])
def test_weights_of_other_types_compute_and_learn_the_same_but_for_rounding(case, dtype, tolerance):
    size = (70, 50)  # nothing fits into whole windows
    with torch.no_grad():
        exact = case.build().eval()(image(size))
    model = case.build().to(dtype).eval()
    outputs = model(image(size).to(dtype))
    assert {x.dtype for x in outputs} == {dtype}
    for found, expected in zip(outputs, exact, strict=True):
        assert (found.double() - expected).norm() / expected.double().norm() < tolerance
    loss_of([x.double() for x in outputs]).backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


@every_case
def test_bfloat16_autocast_is_close_to_float32(case):
    model = case.build().eval()
    with torch.no_grad():
        exact = model(image((64, 80)))
        with torch.autocast('cpu', torch.bfloat16):
            half = model(image((64, 80)))
    for a, b in zip(half, exact, strict=True):
        assert (a.float() - b).norm() / b.norm() < 0.03


@every_case
def test_drop_path_rates_grow_linearly_over_the_blocks(case):
    model = case.build(drop_path_rate=0.6)
    rates = rates_of(model)
    assert rates == pytest.approx([0.6 * i / max(len(rates) - 1, 1) for i in range(len(rates))])


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
