"""Trans2Seg against what its official code computed, its checkpoints, its published size, and maps of any size."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from support import CONFIGS, SUPPORT
from support.backbones import layout_of, randomize_, release
from torch import Tensor, nn
from torch.nn import functional as F

from vitdense.checkpoint.translate import convert
from vitdense.commands.flops import complexity
from vitdense.config.load import load_config
from vitdense.models.heads import Trans2SegHead
from vitdense.models.heads.trans2seg import AttentionMaps, Transformer

LEAVES = {name: CONFIGS / f'trans2seg/trans2seg_{name}_4xb4-40k_ade20k-512x512.py' for name in ('r50-d16', 'pvt-s')}
SMALL = dict(in_channels=(12, 20), in_index=(0, 2), channels=8, embed_dim=16, depth=2, num_heads=4, map_size=3)


@pytest.fixture(autouse=True)
def scope() -> None:
    init_default_scope('mmseg')


def small(num_classes: int = 5, **options) -> Trans2SegHead:
    torch.manual_seed(0)
    return randomize_(Trans2SegHead(num_classes=num_classes, norm_cfg=dict(type='BN'), **SMALL | options))


def small_maps(c1_hw: tuple[int, int] = (9, 14), c4_hw: tuple[int, int] = (3, 4), batch: int = 2) -> list[Tensor]:
    """C1, a map that the head does not read, and C4."""
    generator = torch.Generator().manual_seed(1)
    c1, c4 = (
        torch.randn(batch, channels, *hw, generator=generator)
        for channels, hw in zip(SMALL['in_channels'], (c1_hw, c4_hw), strict=True)
    )
    return [c1, torch.zeros(0), c4]


def numbers(shape: list[int], seed: int) -> Tensor:
    """As for ``original_outputs``: numbers that look uniformly random, of mean 0 and variance 1, in float64."""
    x = torch.sin(12.9898 * torch.arange(math.prod(shape), dtype=torch.float64) + 78.233 * seed) * 43758.5453
    return ((x - x.floor()) * 12**0.5 - 3**0.5).reshape(shape)


def recorded_weight(key: str, shape: list[int], seed: int) -> Tensor:
    x = numbers(shape, seed)
    if key.endswith('running_var'):
        return 1 + 0.2 * x
    if len(shape) < 2:
        return 0.2 * x + key.endswith('weight')
    return 0.5 * x if len(shape) == 3 else x / math.prod(shape[1:]) ** 0.5


@pytest.fixture(scope='module')
def recorded() -> dict:
    return json.loads((SUPPORT / 'original_outputs/trans2seg.json').read_text())


@pytest.fixture(scope='module')
def head(recorded) -> Trans2SegHead:
    """The head of the record, in float64; what got no gradient in the official code is filled with NaN."""
    init_default_scope('mmseg')  # before the fixture of each test
    hyper, norms = dict(recorded['hyper']), recorded['gradient_norms']
    state = {
        key: torch.full(shape, math.nan) if norms.get(key, 0) is None else recorded_weight(key, shape, seed)
        for seed, (key, shape) in enumerate(sorted(recorded['shapes'].items()))
    }
    head = Trans2SegHead(
        in_channels=(hyper.pop('c1_channels'), hyper.pop('c4_channels')),
        in_index=(0, 1),
        channels=hyper.pop('hid_dim'),
        norm_cfg=dict(type='BN'),
        **hyper,
    ).double()
    converted, _ = convert(state, 'trans2seg')
    head.load_state_dict({key.removeprefix('decode_head.'): value for key, value in converted.items()})
    head.eval()
    return head


@pytest.fixture(scope='module')
def inputs(head) -> list[Tensor]:
    c1, c4 = head.in_channels
    return [numbers([2, c1, 64, 64], 1001).requires_grad_(), numbers([2, c4, 32, 32], 1002).requires_grad_()]


def test_logits_and_gradients_are_those_of_the_official_code(recorded, head, inputs):
    logits = head(inputs)
    assert (logits.flatten()[::1021] - torch.tensor(recorded['logits'], dtype=torch.float64)).abs().max() < 1e-8
    logits.square().sum().backward()
    for x, name, step in zip(inputs, ('gradient_c1', 'gradient_c4'), (8191, 4093), strict=True):
        torch.testing.assert_close(
            x.grad.flatten()[::step], torch.tensor(recorded[name]).double(), rtol=1e-6, atol=1e-8
        )
    norms = {key: value for key, value in recorded['gradient_norms'].items() if value is not None}
    theirs, _ = convert({key: torch.full(recorded['shapes'][key], norm) for key, norm in norms.items()}, 'trans2seg')
    ours = {f'decode_head.{key}': value.grad.norm().item() for key, value in head.named_parameters()}
    assert ours == pytest.approx({key: value.flatten()[0].item() for key, value in theirs.items()}, rel=1e-6)


def test_logits_in_float32_are_those_of_the_official_code(recorded, head, inputs):
    state = {key: value.float() for key, value in head.state_dict().items()}
    single = Trans2SegHead(
        in_channels=head.in_channels,
        in_index=(0, 1),
        channels=head.channels,
        norm_cfg=dict(type='BN'),
        **{key: recorded['hyper'][key] for key in ('embed_dim', 'depth', 'num_heads', 'mlp_ratio', 'num_classes')},
    )
    single.load_state_dict(state)
    single.eval()
    with torch.no_grad():
        logits = single([x.detach().float() for x in inputs])
    assert (logits.flatten()[::1021] - torch.tensor(recorded['logits'])).abs().max() <= 1e-4


def unused_parameters(channels: int, hidden: int, places: int, depth: int) -> int:
    """Parameters of the official decoder that its logits do not depend on."""
    mlp = 2 * channels * hidden + hidden + channels
    of_maps = 2 * places + 6 * places**2 + 4 * places  # norm4, mlp3
    of_the_last = channels**2 + (channels**2 + channels) + 2 * (mlp + 2 * channels)  # values, proj, mlp, mlp2
    return (depth - 1) * of_maps + of_the_last


@pytest.mark.parametrize('name', ['trans2seg_small', 'trans2seg_medium'])
def test_release_fills_backbone_and_head(name):
    layout = layout_of(name)
    hyper = layout['hyper']
    sizes = {key: hyper[key] for key in ('embed_dim', 'depth', 'num_heads', 'mlp_ratio', 'num_classes')}
    cfg = load_config(str(LEAVES['r50-d16']))
    cfg.model.backbone.update(stem_channels=128, init_cfg=None)
    cfg.model.decode_head.update(channels=hyper['hid_dim'], **sizes)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    converted, dropped = convert({'state_dict': release(name)}, 'trans2seg')
    own = {key: value.shape for key, value in model.state_dict().items()}
    assert {key: value.shape for key, value in converted.items()} == own
    assert dropped == ['encoder.fc.weight', 'encoder.fc.bias']
    channels = hyper['embed_dim']
    unused = unused_parameters(channels, int(channels * hyper['mlp_ratio']), hyper['num_patches'], hyper['depth'])
    classifier = 1000 * 2049
    assert sum(p.numel() for p in model.parameters()) == layout['params'] - unused - classifier


def parameters_of_modules(model: nn.Module) -> int:
    """Without tables, which belong to no layer: the official code counts with thop, which does not see them."""
    return sum(p.numel() for module in model.modules() if not any(module.children()) for p in module.parameters())


@pytest.mark.parametrize(('name', 'published'), [('r50-d16', 56.1), ('pvt-s', 32.1)])
def test_parameters_are_the_published_ones(name, published):
    """Table 7 of arXiv 2102.12122; of what has no effect on the logits, all is in it."""
    cfg = load_config(str(LEAVES[name]))
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    unused = unused_parameters(256, 768, model.decode_head.transformer.map_size**2, depth=4)
    assert (parameters_of_modules(model) + unused) / 1e6 == pytest.approx(published, abs=0.1)


def batch_norm_outputs(model: nn.Module, hw: tuple[int, int]) -> int:
    """Numbers that all batch norms give for an image, of a model on the meta device."""
    sizes = []
    for module in model.modules():
        if isinstance(module, nn.SyncBatchNorm):
            module.register_forward_hook(lambda module, inputs, output: sizes.append(output.numel()))
    model.eval()
    with torch.no_grad():
        model(torch.zeros(1, 3, *hw, device='meta'))
    return sum(sizes)


def test_flops_are_the_published_ones():
    """Of the medium size with the 12 classes of Trans10K-v2: arXiv 2101.08461, table of all methods.

    By thop's rules: two operations for each output of a batch norm, none for the products within attention. What has no
    effect on the logits is in it.
    """
    cfg = load_config(str(LEAVES['r50-d16']))
    cfg.model.backbone.update(stem_channels=128)
    cfg.model.decode_head.update(num_classes=12)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    counted = complexity(cfg, (512, 512))
    flops = counted.flops - counted.attention_flops + 2 * batch_norm_outputs(model, (512, 512))
    channels, hidden, places, classes, heads = 256, 768, 1024, 12, 8
    flops += 3 * classes * heads * 6 * places**2  # mlp3 of all blocks but the last
    flops += (places + classes) * (channels**2 + 2 * channels * hidden)  # values, proj, mlp and mlp2 of the last
    assert flops / 1e9 == pytest.approx(49.03, abs=0.01)


def test_a_map_of_the_learned_size_has_the_learned_positions():
    transformer = small().transformer
    assert torch.equal(transformer.positions((3, 3)), transformer.pos_embed)


@given(hw=st.tuples(st.integers(2, 9), st.integers(2, 9)))
@settings(max_examples=20, deadline=None)
def test_resized_positions_keep_the_corners(hw):
    torch.manual_seed(0)
    transformer = Transformer(6, 8, depth=1, num_heads=2, hidden_channels=8, map_size=4, queries=3)
    positions = transformer.positions(hw)
    assert positions.shape == (1, 1 + hw[0] * hw[1], 8)
    assert torch.equal(positions[:, 0], transformer.pos_embed[:, 0])
    grid, table = positions[0, 1:].unflatten(0, hw), transformer.pos_embed[0, 1:].unflatten(0, (4, 4))
    torch.testing.assert_close(grid[[0, 0, -1, -1], [0, -1, 0, -1]], table[[0, 0, -1, -1], [0, -1, 0, -1]])


@given(hw=st.tuples(st.integers(1, 9), st.integers(1, 9)), classes=st.integers(1, 7))
@settings(max_examples=20, deadline=None)
def test_attention_maps_are_twice_the_logits_and_what_the_mlp_adds(hw, classes):
    """Where all places of an image are alike, the MLP adds the same on a map of any size, but for the resizing."""
    torch.manual_seed(0)
    maps = randomize_(AttentionMaps(8, num_heads=2, map_size=4))
    queries, place = torch.randn(2, classes, 8), torch.randn(2, 1, 8)
    with torch.no_grad():
        found = maps(queries, place.expand(-1, hw[0] * hw[1], -1), hw)
        k = maps.fc_k(maps.norm1(place)).view(2, 1, 2, 4)
        q = maps.fc_q(maps.norm1_clsembed(queries)).view(2, 2, classes, 4)
        logits = torch.einsum('bmkd,bnmd->bkm', q, k) / 4**0.5
        places = 2 * logits.repeat_interleave(16, 2).view(2, -1, 16)
        change = maps.mlp3(maps.norm4(places)).unflatten(2, (4, 4))
    assert change.abs().max() > 0.1
    change = F.interpolate(change, hw, mode='bilinear', align_corners=True).view(2, classes, 2, *hw)
    torch.testing.assert_close(found, 2 * logits[..., None, None] + change, rtol=0, atol=1e-5)


@given(c1_hw=st.tuples(st.integers(1, 12), st.integers(1, 12)), c4_hw=st.tuples(st.integers(1, 6), st.integers(1, 6)))
@settings(max_examples=20, deadline=None)
def test_maps_of_any_size_and_each_image_on_its_own(c1_hw, c4_hw):
    head, maps = small(), small_maps(c1_hw, c4_hw)
    with torch.no_grad():
        logits = head(maps)
        alone = head([x[1:] for x in maps])
    assert logits.shape == (2, 5, *c1_hw)
    assert logits.isfinite().all()
    torch.testing.assert_close(logits[1:], alone, rtol=0, atol=1e-5)
    assert (logits[0] - logits[1]).abs().max() > 1e-3


@pytest.mark.parametrize(
    'classes',
    [
        dict(num_classes=2),
        dict(num_classes=2, out_channels=1, loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True)),
        dict(num_classes=19),
    ],
)
def test_every_parameter_learns(classes):
    head = small(**classes, threshold=0.3)
    head.train()
    labels = torch.randint(2, (2, 1, 36, 56), generator=torch.Generator().manual_seed(2))
    labels[:, :, :4] = 255
    samples = [
        SegDataSample(gt_sem_seg=PixelData(data=label), metainfo=dict(img_shape=label.shape[1:])) for label in labels
    ]
    losses = head.loss(small_maps(), samples, {})
    assert losses['loss_ce'].isfinite()
    assert losses['loss_ce'] > 0
    losses['loss_ce'].backward()
    assert [name for name, p in head.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r'in_channels must be two numbers, of C1 and C4, got \(12, 16, 20\)'):
        small(in_channels=(12, 16, 20))
    with pytest.raises(ValueError, match=r'in_index must be two numbers, of C1 and C4, got \[3\]'):
        small(in_index=[3])
    with pytest.raises(ValueError, match='embed_dim 18 must be a multiple of num_heads 4'):
        small(embed_dim=18)
    with pytest.raises(ValueError, match='depth must be at least 1, got 0'):
        small(depth=0)
    with pytest.raises(ValueError, match='map_size must be at least 1, got 0'):
        small(map_size=0)
