"""Swin and SwinV2 against implementations that others wrote, with the same weights."""

import re

import pytest
import timm
import torch
import torchvision
import transformers
from mmdet.models.backbones import SwinTransformer as MMDetSwin
from support.backbones import assert_maps_close, image, layout_of, randomize_, release, save
from torch import nn
from torch.nn import functional as F
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2

from vitdense.checkpoint.layouts import family_of
from vitdense.checkpoint.pretrained import Pretrained
from vitdense.checkpoint.translate import convert
from vitdense.models.backbones import Swin, SwinV2

ODD_SIZES = [(250, 310), (97, 129)]
SHALLOW = (2, 2, 2, 2)
NARROW = dict(embed_dims=24, num_heads=(1, 2, 4, 8), depths=SHALLOW)
DERIVED = ('relative_position_index', 'relative_coords_table', 'attn_mask')
STAGES = ['stage1', 'stage2', 'stage3', 'stage4']


def load(model: Swin, theirs: nn.Module) -> Swin:
    """Ours with their weights; the norms of the maps, which not all have, stay at one and zero."""
    state, _ = convert(theirs.state_dict(), family_of(type(model)))
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) in (set(), {f'norm{s}.{part}' for s in range(4) for part in ('weight', 'bias')})
    return model.eval()


def normed(maps) -> list[torch.Tensor]:
    """Maps of classification models, which have no norms of their own."""
    return [F.layer_norm(x.movedim(1, 3), x.shape[1:2]).movedim(3, 1) for x in maps]


def mmdet_swin(row, **kwargs) -> nn.Module:
    sizes = dict(embed_dims=row.embed_dims, depths=row.depths, num_heads=row.num_heads, window_size=row.window_size)
    return randomize_(MMDetSwin(**sizes, **kwargs))


def timm_maps(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    return normed(model.forward_intermediates(x, intermediates_only=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ('arch', 'kwargs', 'sizes'),
    [
        ('tiny', dict(), [*ODD_SIZES, (40, 21)]),
        ('small', dict(depths=SHALLOW), ODD_SIZES[1:]),
        ('base', dict(depths=SHALLOW), ODD_SIZES[1:]),
        ('large', dict(depths=SHALLOW), ODD_SIZES[1:]),
        ('tiny', dict(depths=SHALLOW, window_size=12), ODD_SIZES),
        ('tiny', dict(depths=SHALLOW, qkv_bias=False), ODD_SIZES[1:]),
    ],
)
@torch.no_grad()
def test_swin_equals_mmdet(arch, kwargs, sizes):
    ours = Swin(arch, **kwargs)
    theirs = mmdet_swin(ours.arch, qkv_bias=ours.arch.qkv_bias)
    load(ours, theirs)
    for hw in sizes:
        x = image(hw, batch=2)
        assert_maps_close(ours(x), theirs(x))


@pytest.mark.slow
@torch.no_grad()
def test_swin_equals_transformers():
    theirs = randomize_(transformers.SwinBackbone(transformers.SwinConfig(depths=SHALLOW, out_features=STAGES)))
    ours = load(Swin('tiny', depths=SHALLOW), theirs)
    for hw in ODD_SIZES:
        x = image(hw, batch=2)
        assert_maps_close(ours(x), theirs(x).feature_maps)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'arch', 'kwargs', 'side'),
    [
        ('swin_tiny_patch4_window7_224', 'tiny', dict(), 224),
        ('swin_base_patch4_window12_384', 'base', dict(window_size=12, depths=SHALLOW), 384),
    ],
)
@torch.no_grad()
def test_swin_equals_timm(name, arch, kwargs, side):
    """timm shifts maps before it pads them, so sizes are such that nothing is padded."""
    ours = Swin(arch, **kwargs)
    theirs = randomize_(timm.create_model(name, num_classes=0, always_partition=True, depths=ours.arch.depths))
    load(ours, theirs)
    x = image((side, side), batch=2)
    assert_maps_close(ours(x), timm_maps(theirs, x))


@pytest.mark.slow
@torch.no_grad()
def test_a_map_of_one_window_is_shifted_as_in_mmdet():
    """timm does not shift it unless told so; the last map of an image of 224 pixels is one window."""
    x = image((224, 224), batch=2)
    classifier = randomize_(timm.create_model('swin_tiny_patch4_window7_224', num_classes=0, depths=SHALLOW))
    ours = load(Swin('tiny', depths=SHALLOW), classifier)
    theirs = timm_maps(classifier, x)
    assert_maps_close(ours(x)[:3], theirs[:3])
    assert (ours(x)[3] - theirs[3]).abs().max() > 0.1


W16 = dict(window_size=16, pretrained_window_sizes=(12, 12, 12, 6))


@pytest.mark.slow
@pytest.mark.parametrize(
    ('kwargs', 'config', 'sizes'),
    [
        (dict(arch='tiny'), dict(depths=[2, 2, 6, 2]), [(290, 330)]),
        (dict(arch='base', depths=SHALLOW), dict(embed_dim=128, num_heads=[4, 8, 16, 32]), [(257, 340)]),
        (dict(arch='tiny', **NARROW), NARROW, [(512, 768), (301, 265)]),
        (dict(arch='large', **NARROW), NARROW | W16, [(530, 590)]),
    ],
)
@torch.no_grad()
def test_swin_v2_equals_transformers(kwargs, config, sizes):
    """Where no map is one window; ``image_size``, by which transformers decides that, is a large one here."""
    for hw in sizes:
        assert_equals_transformers(kwargs, config, hw, image_size=1024)


@pytest.mark.parametrize(
    ('kwargs', 'side'),
    [(dict(), 256), (dict(), 224), (dict(), 128), (dict(), 64), (W16, 512), (W16, 448), (W16, 256)],
)
@torch.no_grad()
def test_swin_v2_equals_transformers_where_maps_are_one_window(kwargs, side):
    """A square of half a window, or of all but one of its tokens, makes a smaller one."""
    sizes = dict(window_size=8, pretrained_window_sizes=(8, 8, 8, 8)) | kwargs
    assert_equals_transformers(dict(arch='tiny', **NARROW | sizes), NARROW | sizes, (side, side), image_size=side)


def assert_equals_transformers(kwargs, config, hw, image_size):
    config = dict(depths=SHALLOW, window_size=8, embed_dim=config.get('embed_dims', 96)) | config
    config = transformers.Swinv2Config(**config, image_size=image_size, out_features=STAGES)
    theirs = randomize_(transformers.Swinv2Backbone(config))
    x = image(hw, batch=2)
    assert_maps_close(load(SwinV2(**kwargs), theirs)(x), normed(theirs(x).feature_maps))


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'hw', 'window', 'pretrained'),
    [
        ('swinv2_tiny_window8_256', (256, 256), 8, (0, 0, 0, 0)),
        ('swinv2_small_window8_256', (256, 256), 8, (0, 0, 0, 0)),
        ('swinv2_tiny_window16_256', (256, 256), 16, (0, 0, 0, 8)),
        ('swinv2_tiny_window16_256', (512, 512), 16, (16, 16, 16, 8)),
        ('swinv2_tiny_window8_256', (256, 512), 8, (8, 8, 8, 8)),
        ('swinv2_tiny_window8_256', (64, 256), 8, (8, 8, 8, 8)),
        ('swinv2_tiny_window8_256', (512, 20), 8, (8, 8, 8, 8)),
    ],
)
@torch.no_grad()
def test_swin_v2_equals_timm(name, hw, window, pretrained):
    """Where a side of a map is one window or less, or not padded: timm shifts before it pads.

    For images of another size than those of the pretraining, timm has to be told the windows that these had.
    """
    ours = SwinV2(name.split('_')[1], depths=SHALLOW, window_size=window, pretrained_window_sizes=pretrained)
    told = dict(img_size=hw, pretrained_window_sizes=pretrained) if hw != (256, 256) else {}
    theirs = randomize_(timm.create_model(name, num_classes=0, depths=SHALLOW, **told))
    x = image(hw, batch=2)
    assert_maps_close(load(ours, theirs)(x), timm_maps(theirs, x))


@pytest.mark.parametrize('hw', [(256, 256), (248, 308), (308, 248), (260, 516), (384, 416)])
@torch.no_grad()
def test_swin_v2_equals_torchvision(hw):
    """Where no side is less than a window, which torchvision pads. The last maps have 8 x 8, 8 x 10, 9 x 17 tokens."""
    parts = dict(block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2)
    theirs = torchvision.models.SwinTransformer([4, 4], 24, list(SHALLOW), [1, 2, 4, 8], [8, 8], **parts)
    ours = SwinV2('tiny', **NARROW)
    missing, unexpected = ours.load_state_dict(of_torchvision(randomize_(theirs).state_dict()), strict=False)
    assert not unexpected
    assert all(key.startswith('norm') for key in missing)
    x, maps = image(hw, batch=2), []
    for index, layer in enumerate(theirs.features):
        x = layer(x)
        if index % 2:
            maps.append(x.movedim(3, 1))
    assert_maps_close(ours.eval()(image(hw, batch=2)), normed(maps))


TORCHVISION = {
    r'features\.0\.0\.': 'patch_embed.proj.',
    r'features\.0\.2\.': 'patch_embed.norm.',
    r'features\.(\d)\.(?=reduction|norm\.)': lambda found: f'layers.{int(found[1]) // 2 - 1}.downsample.',
    r'features\.(\d)\.(?=\d)': lambda found: f'layers.{int(found[1]) // 2}.blocks.',
    r'\.mlp\.0\.': '.mlp.fc1.',
    r'\.mlp\.3\.': '.mlp.fc2.',
}


def of_torchvision(state):
    """Names of torchvision's SwinV2 to ours; it sets the bias of keys to zero."""
    renamed = {}
    for key, value in state.items():
        if key.endswith(DERIVED) or key.startswith(('norm.', 'head.')):
            continue
        for theirs, ours in TORCHVISION.items():
            key = re.sub(theirs, ours, key)
        if key.endswith('qkv.bias'):
            q_bias, _, v_bias = value.chunk(3)
            renamed |= {key.replace('qkv.bias', 'q_bias'): q_bias, key.replace('qkv.bias', 'v_bias'): v_bias}
        else:
            renamed[key] = value
    return renamed


@torch.no_grad()
def test_swin_v2_scale_is_clamped_at_100():
    torch.manual_seed(0)
    model = randomize_(SwinV2('tiny', **NARROW))
    scales = [p for name, p in model.named_parameters() if name.endswith('logit_scale')]
    results = []
    for logarithm in (3.0, 4.7, 9.0):  # 4.6 is the logarithm of 100
        for scale in scales:
            scale.fill_(logarithm)
        results.append(model(image((64, 64), batch=2)))
    assert (results[0][3] - results[1][3]).abs().max() > 1e-2
    for a, b in zip(*results[1:], strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['swin_tiny', 'swin_small', 'swin_base', 'swinv2_tiny'])
def test_names_and_shapes_equal_the_release(name):
    """Of the detection backbone, for V2 of the classifier; what is derived is not stored."""
    layout = layout_of(name)
    family, arch = (SwinV2, name[7:]) if name.startswith('swinv2') else (Swin, name[5:])
    keys = layout['keys'] if family is SwinV2 else layout['extra_layouts']['detection_backbone']
    released = {key: tuple(shape) for key, shape, _ in keys if not key.endswith(DERIVED)}
    own = {key: tuple(value.shape) for key, value in family(arch).state_dict().items()}
    if family is SwinV2:
        released = {key: shape for key, shape in released.items() if not key.startswith(('norm.', 'head.'))}
        own = {key: shape for key, shape in own.items() if not key.startswith('norm')}
    assert own == released


@pytest.mark.parametrize(
    ('family', 'arch', 'millions'),
    [
        (Swin, 'tiny', 28),
        (Swin, 'small', 50),
        (Swin, 'base', 88),
        (Swin, 'large', 197),
        (SwinV2, 'small', 50),
        (SwinV2, 'base', 88),
        (SwinV2, 'large', 197),
    ],
)
def test_parameter_count_is_the_published_one(family, arch, millions):
    """Published with the classifier, which has a norm after the last stage only."""
    with torch.device('meta'):
        model = family(arch)
    channels = model.out_channels[-1]
    count = sum(p.numel() for name, p in model.named_parameters() if not name.startswith(('norm0', 'norm1', 'norm2')))
    assert round((count + 1000 * channels + 1000) / 1e6) == millions


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'family'), [('swin_tiny', Swin), ('swinv2_tiny', SwinV2)])
def test_official_file_loads_unmodified(tmp_path, log, name, family):
    state = release(name)
    path = save(tmp_path, {'model': state})
    model = family('tiny', init_cfg=dict(type='vitdense.Pretrained', checkpoint=path))
    model.init_weights()
    own = {key: value for key, value in model.state_dict().items() if not key.startswith('norm')}
    assert all(torch.equal(value, state[key]) for key, value in own.items())
    assert len(log) == 1
    assert ' (Swin' in log[0]
    assert ', fresh 8 (norm0.*, norm1.*, norm2.*, norm3.*), left out ' in log[0]
    assert 'relative_position_index' in log[0]
    assert log[0].endswith(', norm.*, head.*)')


@pytest.mark.slow
def test_bias_tables_of_another_window_are_resized(tmp_path, log):
    state = release('swin_tiny')
    path = save(tmp_path, {'model': state})
    model = Swin('tiny', window_size=12)
    Pretrained(path)(model)
    key = 'layers.2.blocks.3.attn.relative_position_bias_table'
    table = F.interpolate(state[key].t().view(1, 12, 13, 13), size=(23, 23), mode='bicubic')
    torch.testing.assert_close(model.state_dict()[key], table.view(12, 529).t())
    assert 'resized 12 (layers.*.relative_position_bias_table)' in log[0]


@pytest.mark.slow
def test_swin_v2_of_another_window_loads_without_resizing(tmp_path, log):
    path = save(tmp_path, {'model': release('swinv2_tiny')})
    Pretrained(path)(SwinV2('tiny', window_size=12, pretrained_window_sizes=(8, 8, 8, 8)))
    assert 'resized' not in log[0]
    assert 'fresh 8 (norm0.*, norm1.*, norm2.*, norm3.*)' in log[0]


@torch.no_grad()
@pytest.mark.parametrize('family', [Swin, SwinV2])
def test_padding_of_a_batch_changes_features_near_it_only(family):
    """As the docstring says. The first two blocks see a window and half a window: 7 tokens, of which 4 are inside."""
    torch.manual_seed(0)
    model = randomize_(family('tiny', depths=SHALLOW, window_size=7, out_indices=(0,)))
    alone = image((112, 112), batch=2)
    in_batch = F.pad(alone, (0, 56, 0, 84))
    changed = (model(in_batch)[0][:, :, :28, :28] - model(alone)[0]).abs().amax((0, 1)) > 1e-5
    assert not changed[:24, :24].any()
    assert changed[24:].all()
    assert changed[:, 24:].all()


@pytest.mark.parametrize(
    ('family', 'kwargs', 'error', 'message'),
    [
        (Swin, dict(arch='tinny'), ValueError, "Swin: unknown arch 'tinny': did you mean 'tiny'"),
        (Swin, dict(arch='tiny', window=12), TypeError, "unknown argument 'window': did you mean 'window_size'"),
        (Swin, dict(arch='tiny', window_size=1), ValueError, 'window_size must be at least 2, got 1'),
        (Swin, dict(arch='tiny', depths=(2, 2)), ValueError, "4 stages, got {'depths': 2, 'num_heads': 4}"),
        (Swin, dict(arch='tiny', embed_dims=64), ValueError, r'channels \(64, 128, .* multiples of num_heads'),
        (Swin, dict(arch='tiny', out_indices=(0, 4)), ValueError, r'0 to 3, got \(0, 4\)'),
        (
            Swin,
            dict(arch='tiny', pretrained_window_sizes=(1,)),
            TypeError,
            "unknown argument 'pretrained_window_sizes'",
        ),
        (SwinV2, dict(arch='huge'), ValueError, "SwinV2: unknown arch 'huge'"),
        (SwinV2, dict(arch='tiny', pretrained_window_sizes=(8, 8)), ValueError, r'4 windows, .* got \(8, 8\)'),
        (SwinV2, dict(arch='tiny', pretrained_window_sizes=(8, 8, 8, 1)), ValueError, 'at least 2 tokens'),
    ],
)
def test_bad_arguments_are_named(family, kwargs, error, message):
    with pytest.raises(error, match=message):
        family(**kwargs)
