"""ViT, DeiT and BEiT against implementations of others with the same weights, their tables and their files."""

import numpy as np
import pytest
import timm
import torch
import transformers
from mmseg.models.backbones import VisionTransformer as MMSegViT
from support.backbones import assert_maps_close, image, layout_of, randomize_, release, save
from torch import nn
from torch.nn import functional as F

from vitdense.checkpoint.pretrained import Pretrained
from vitdense.checkpoint.translate import convert
from vitdense.models.backbones import ViT

BEIT = dict(pos_embed=None, rel_pos='bias_table', layer_scale=0.1)


def load(model: nn.Module, state: dict) -> nn.Module:
    model.load_state_dict(convert(state, 'vit')[0], strict=True)
    return model.eval()


def small(depth: int = 2, **kwargs) -> ViT:
    """A narrow model of images of 48 pixels."""
    torch.manual_seed(0)
    return ViT('tiny', **{'embed_dims': 48, 'num_heads': 3, 'depth': depth, 'img_size': 48, **kwargs})


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'kwargs', 'theirs', 'sizes'),
    [
        ('vit_tiny_patch16_224', dict(arch='tiny'), dict(), [(224, 224), (160, 352), (112, 448)]),
        ('vit_small_patch8_224', dict(arch='small', patch_size=8), dict(depth=2), [(96, 128)]),
        ('vit_small_patch32_224', dict(arch='small', patch_size=32), dict(depth=2), [(224, 320)]),
        ('vit_base_patch16_224', dict(arch='base'), dict(depth=3), [(256, 320)]),
        ('vit_large_patch14_224', dict(arch='large', patch_size=14), dict(depth=2), [(224, 308)]),
        ('vit_base_patch16_224', dict(arch='base', img_size=(96, 256)), dict(depth=2, img_size=(96, 256)), [(80, 64)]),
        ('vit_base_patch16_224', dict(arch='base', qkv_bias=False), dict(depth=2, qkv_bias=False), [(64, 96)]),
        ('vit_base_patch16_224', dict(arch='base', pos_embed=None), dict(depth=2, pos_embed='none'), [(64, 96)]),
        (
            'vit_base_patch16_224',
            dict(arch='base', class_token=False),
            dict(depth=2, class_token=False, global_pool='avg', fc_norm=False),
            [(96, 64)],
        ),
        (
            'vit_small_patch14_reg4_dinov2',
            dict(arch='small', patch_size=14, img_size=518, reg_tokens=4, layer_scale=1.0, pos_embed='patches'),
            dict(depth=2),
            [(224, 280)],
        ),
        (
            'vit_base_patch16_224',
            dict(arch='base', reg_tokens=3, layer_scale=0.1),
            dict(depth=2, reg_tokens=3, init_values=0.1),
            [(160, 224)],
        ),
        (
            'deit_small_distilled_patch16_224',
            dict(arch='small', dist_token=True),
            dict(depth=3),
            [(224, 224), (112, 320)],
        ),
    ],
)  # fmt: skip
def test_equals_timm(name, kwargs, theirs, sizes):
    reference = randomize_(timm.create_model(name, num_classes=0, dynamic_img_size=True, **theirs))
    depth = theirs.get('depth', 12)
    model = ViT(depth=depth, out_indices=range(depth), final_norm=True, **kwargs)
    load(model, reference.state_dict())
    for hw in sizes:
        with torch.no_grad():
            ours = model(image(hw))
            last, maps = reference.forward_intermediates(image(hw))
            prefix = last[:, model.arch.num_prefix :].transpose(1, 2)
            assert_maps_close(ours, [*maps[:-1], prefix.unflatten(2, ours[-1].shape[2:])])


@pytest.mark.slow
@pytest.mark.parametrize('name', ['beit_base_patch16_224', 'beitv2_large_patch16_224'])
def test_beit_equals_timm(name):
    reference = randomize_(timm.create_model(name, num_classes=0, depth=3))
    model = load(ViT(name.split('_')[1], depth=3, out_indices=(0, 1, 2), **BEIT), reference.state_dict())
    with torch.no_grad():
        theirs = reference.forward_intermediates(image((224, 224)), intermediates_only=True)
        assert_maps_close(model(image((224, 224))), theirs)


def test_beit_of_a_wide_image_equals_timm():
    options = dict(num_classes=0, depth=2, img_size=(96, 160))
    reference = randomize_(timm.create_model('beit_base_patch16_224', **options))
    model = load(ViT('base', depth=2, out_indices=(0, 1), img_size=(96, 160), **BEIT), reference.state_dict())
    with torch.no_grad():
        theirs = reference.forward_intermediates(image((96, 160)), intermediates_only=True)
        assert_maps_close(model(image((96, 160))), theirs)


def test_beit_at_another_size_resizes_its_bias_table():
    model = randomize_(small(**BEIT))
    larger = small(img_size=(64, 96), **BEIT)
    state = model.state_dict()
    for key in [key for key in state if key.endswith('bias_table')]:
        grid = state[key][:-3].T.unflatten(1, (5, 5))[None]
        grid = F.interpolate(grid, size=(7, 11), mode='bilinear', align_corners=False)[0].flatten(1).T
        state[key] = torch.cat([grid, state[key][-3:]])
    larger.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(model(image((64, 96))), larger.eval()(image((64, 96))))


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['ViT', 'DeiT'])
def test_equals_transformers(kind):
    sizes = dict(hidden_size=96, num_attention_heads=3, num_hidden_layers=2, intermediate_size=384)
    config = getattr(transformers, f'{kind}Config')(**sizes, layer_norm_eps=1e-6)
    reference = randomize_(getattr(transformers, f'{kind}Model')(config))
    options = dict(pos_resize='bicubic', dist_token=kind == 'DeiT', final_norm=True)
    model = load(ViT('tiny', embed_dims=96, depth=2, **options), reference.state_dict())
    for hw in [(224, 224), (112, 320)]:
        with torch.no_grad():
            theirs = reference(image(hw), interpolate_pos_encoding=True).last_hidden_state[:, model.arch.num_prefix :]
            assert_maps_close(model(image(hw)), [theirs.transpose(1, 2).unflatten(2, (hw[0] // 16, hw[1] // 16))])


@pytest.mark.parametrize('rule', ['bicubic', 'bilinear'])
def test_equals_mmseg(rule):
    sizes = dict(embed_dims=96, num_heads=3, num_layers=3, out_indices=(0, 2), img_size=(64, 96))
    options = dict(patch_bias=True, norm_cfg=dict(type='LN', eps=1e-6), interpolate_mode=rule)
    reference = randomize_(MMSegViT(**sizes, **options, final_norm=True))
    ours = dict(embed_dims=96, depth=3, out_indices=(0, 2), img_size=(64, 96), final_norm=True)
    model = load(ViT('tiny', pos_resize=rule, **ours), reference.state_dict())
    for hw in [(64, 96), (80, 48)]:
        with torch.no_grad():
            assert_maps_close(model(image(hw)), reference(image(hw)))


@pytest.mark.parametrize(
    ('name', 'kwargs'),
    [
        ('deit_tiny_patch16_224', dict(arch='tiny')),
        ('deit_small_patch16_224', dict(arch='small')),
        ('deit_base_patch16_224', dict(arch='base')),
        ('deit_base_patch16_224/deit_base_distilled_patch16_384', dict(arch='base', dist_token=True, img_size=384)),
        ('vit_small_patch16_224_augreg', dict(arch='small')),
        ('vit_base_patch16_224', dict(arch='base')),
        ('vit_large_patch16_384', dict(arch='large', img_size=384)),
        ('mae_vit_base', dict(arch='base')),
    ],
)
def test_names_and_shapes_equal_the_release(name, kwargs):
    name, _, extra = name.partition('/')
    layout = layout_of(name)
    keys = layout['extra_layouts'][extra] if extra else layout['keys']
    with torch.device('meta'):
        state = ViT(final_norm=True, **kwargs).state_dict()
    released = {key: tuple(shape) for key, shape, *_ in keys if not key.startswith('head')}
    assert {key: tuple(value.shape) for key, value in state.items()} == released


@pytest.mark.parametrize(('arch', 'patch', 'millions'), [('huge', 14, 630.8), ('large', 32, 305.5), ('base', 32, 87.5)])
def test_parameter_count_is_the_published_one(arch, patch, millions):
    """As published for the encoder, with its final norm."""
    with torch.device('meta'):
        model = ViT(arch, patch_size=patch, final_norm=True)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == millions


@pytest.mark.parametrize('rule', ['bicubic', 'bilinear'])
def test_position_table_is_resized_by_the_rule_of_the_release(rule):
    """Twice the size in both directions: interpolation by hand at the pixel centres, the class entry as it is."""
    model = small(pos_resize=rule, out_indices=(0,), depth=1)
    patches = torch.zeros(1, 36, 48)
    placed = model.place(patches, (6, 6))
    table = model.pos_embed[:, 1:].unflatten(1, (3, 3)).permute(0, 3, 1, 2)
    expected = F.interpolate(table, scale_factor=2, mode=rule, align_corners=False).flatten(2).transpose(1, 2)
    torch.testing.assert_close(placed[:, 1:], expected)
    torch.testing.assert_close(placed[:, :1], model.cls_token + model.pos_embed[:, :1])


def test_a_table_of_as_many_places_in_another_shape_is_resized():
    model = small(img_size=(64, 256))
    assert not torch.allclose(model.place(torch.zeros(1, 64, 48), (8, 8))[:, 1:], model.pos_embed[:, 1:], atol=1e-3)


def test_official_file_loads_unmodified(tmp_path, log):
    state = release('deit_tiny_patch16_224')
    path = save(tmp_path, {'model': state})
    model = ViT('tiny', init_cfg=dict(type='vitdense.Pretrained', checkpoint=path))
    model.init_weights()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert log == [f'loaded 100 % of backbone parameters from {path} (timm/DeiT/MAE/BEiT), left out 4 (head.*, norm.*)']


def test_decoder_of_mae_is_dropped():
    state = release('deit_tiny_patch16_224')
    decoder = {key: torch.zeros(1) for key in ('mask_token', 'decoder_pos_embed', 'decoder_blocks.0.norm1.weight')}
    converted, dropped = convert({'model': {**state, **decoder}}, 'vit')
    assert dropped == ['head.weight', 'head.bias', *decoder]
    assert converted.keys() == ViT('tiny', final_norm=True).state_dict().keys()


@pytest.mark.parametrize(('rule', 'antialias'), [('bicubic', False), ('bicubic_antialias', True)])
def test_position_table_of_a_file_is_resized_by_the_rule_of_the_model(tmp_path, log, rule, antialias):
    state = release('deit_tiny_patch16_224')
    model = ViT('tiny', img_size=(128, 288), pos_resize=rule)
    Pretrained(save(tmp_path, state))(model)
    grid = state['pos_embed'][:, 1:].unflatten(1, (14, 14)).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(8, 18), mode='bicubic', antialias=antialias).flatten(2).transpose(1, 2)
    torch.testing.assert_close(model.pos_embed.data, torch.cat([state['pos_embed'][:, :1], grid], dim=1))
    assert 'resized 1 (pos_embed)' in log[0]


def test_entries_of_tokens_that_the_model_lacks_are_dropped(tmp_path, log):
    state = release('deit_tiny_patch16_224')
    for kwargs in (dict(class_token=False), dict(pos_embed='patches')):
        model = ViT('tiny', **kwargs)
        Pretrained(save(tmp_path, state))(model)
        assert torch.equal(model.pos_embed.data, state['pos_embed'][:, 1:])


def test_table_that_cannot_be_resized_is_an_error(tmp_path):
    state = release('deit_tiny_patch16_224')
    with pytest.raises(ValueError, match=r'has 1 entries before those of the 14 x 14 patches, not 2'):
        Pretrained(save(tmp_path, state))(ViT('tiny', dist_token=True))
    state['pos_embed'] = torch.zeros(1, 1 + 50 * 84, 192)
    with pytest.raises(ValueError, match=r'weights.pth: pos_embed with 4201 entries is not the table of a square'):
        Pretrained(save(tmp_path, state))(ViT('tiny'))


def test_shared_bias_of_a_beit_before_fine_tuning_goes_to_every_block(tmp_path, log):
    model = small(img_size=80, **BEIT)
    state = {
        key.replace('ls1.gamma', 'gamma_1').replace('ls2.gamma', 'gamma_2'): torch.randn_like(value)
        for key, value in model.state_dict().items()
        if 'bias_table' not in key
    }
    shared = torch.randn(9 * 9 + 3, 3)
    state['rel_pos_bias.relative_position_bias_table'] = shared
    state['rel_pos_bias.relative_position_index'] = torch.zeros(26, 26, dtype=torch.long)
    path = save(tmp_path, state)
    Pretrained(path)(model)
    for block in model.blocks:
        assert torch.equal(block.attn.relative_position_bias_table.data, shared)
    assert torch.equal(model.blocks[1].ls2.gamma.data, state['blocks.1.gamma_2'])
    other = small(img_size=48, **BEIT)
    Pretrained(path)(other)
    grid = F.interpolate(shared[:-3].T.unflatten(1, (9, 9))[None], size=(5, 5), mode='bilinear')[0].flatten(1).T
    torch.testing.assert_close(other.blocks[0].attn.relative_position_bias_table.data, torch.cat([grid, shared[-3:]]))


def test_weights_of_mae_lose_nothing_to_relative_positions(tmp_path, log):
    plain = randomize_(small())
    state = {key: value.clone() for key, value in plain.state_dict().items()}
    model = small(rel_pos='bias_table', layer_scale=1.0)
    Pretrained(save(tmp_path, state))(model)
    x = image((48, 48))
    assert_maps_close(model.eval()(x), plain.eval()(x))


def test_jax_file_loads_as_timm_loads_it(tmp_path, log):
    reference = timm.create_model('vit_tiny_patch16_224', depth=2)
    generator = np.random.default_rng(0)
    channels, heads, width, hidden = 192, 3, 64, 768
    block = {
        'LayerNorm_0/scale': (channels,),
        'LayerNorm_0/bias': (channels,),
        'LayerNorm_2/scale': (channels,),
        'LayerNorm_2/bias': (channels,),
        **{f'MultiHeadDotProductAttention_1/{n}/kernel': (channels, heads, width) for n in ('query', 'key', 'value')},
        **{f'MultiHeadDotProductAttention_1/{n}/bias': (heads, width) for n in ('query', 'key', 'value')},
        'MultiHeadDotProductAttention_1/out/kernel': (heads, width, channels),
        'MultiHeadDotProductAttention_1/out/bias': (channels,),
        'MlpBlock_3/Dense_0/kernel': (channels, hidden),
        'MlpBlock_3/Dense_0/bias': (hidden,),
        'MlpBlock_3/Dense_1/kernel': (hidden, channels),
        'MlpBlock_3/Dense_1/bias': (channels,),
    }
    shapes = {
        'cls': (1, 1, channels),
        'embedding/kernel': (16, 16, 3, channels),
        'embedding/bias': (channels,),
        'Transformer/posembed_input/pos_embedding': (1, 197, channels),
        'Transformer/encoder_norm/scale': (channels,),
        'Transformer/encoder_norm/bias': (channels,),
        'head/kernel': (channels, 1000),
        'head/bias': (1000,),
        **{f'Transformer/encoderblock_{i}/{key}': shape for i in range(2) for key, shape in block.items()},
    }
    path = tmp_path / 'weights.npz'
    np.savez(path, **{key: generator.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()})
    reference.load_pretrained(str(path))
    model = ViT('tiny', depth=2, final_norm=True)
    Pretrained(str(path))(model)
    theirs = reference.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in model.state_dict().items())
    assert log[0] == f'loaded 100 % of backbone parameters from {path} (JAX), left out 2 (head/kernel, head/bias)'


def test_final_norm_counts_to_the_last_block_that_is_built():
    model = small(depth=4, out_indices=(1, 2), final_norm=True)
    assert model.depths == (1, 1, 1)
    assert model.layer_id('norm.weight') == model.num_layers == 3


@pytest.mark.parametrize(
    ('kwargs', 'error', 'message'),
    [
        (dict(arch='bsae'), ValueError, "unknown arch 'bsae': did you mean 'base'"),
        (dict(img_szie=384), TypeError, "unknown argument 'img_szie': did you mean 'img_size'"),
        (dict(img_size=225), ValueError, 'img_size must be multiples of patch_size 16, got 225'),
        (dict(img_size=(224, 100)), ValueError, r'img_size must be multiples of patch_size 16, got \(224, 100\)'),
        (dict(patch_size=15), ValueError, 'img_size must be multiples of patch_size 15, got 224'),
        (dict(pos_resize='bicubc'), ValueError, "unknown pos_resize 'bicubc': did you mean 'bicubic'"),
        (dict(pos_embed='patch'), ValueError, "unknown pos_embed 'patch': did you mean 'patches'"),
        (dict(rel_pos='bias'), ValueError, "unknown rel_pos 'bias': did you mean 'bias_table'"),
        (dict(num_heads=5), ValueError, 'embed_dims 192 must be a multiple of num_heads 5'),
        (dict(class_token=False, dist_token=True), ValueError, 'dist_token=True needs class_token=True'),
        (dict(window_size=14), ValueError, 'window_size=14 needs class_token=False'),
        (dict(window_size=14, class_token=False, reg_tokens=4), ValueError, 'reg_tokens=0'),
        (dict(rel_pos='decomposed'), ValueError, "rel_pos='decomposed' needs class_token=False"),
        (dict(rel_pos='bias_table', class_token=False, window_size=7), ValueError, 'no dist_token, .* or window_size'),
        (dict(rel_pos='bias_table', reg_tokens=1), ValueError, 'one class token'),
        (dict(rel_pos_size=1024), ValueError, "rel_pos_size needs rel_pos='decomposed', got rel_pos=None"),
        (dict(global_blocks=(2, 5)), ValueError, r'global_blocks \(2, 5\) need a window_size'),
        (dict(class_token=False, window_size=7, global_blocks=(12,)), ValueError, r'0 to 11, got \(12,\)'),
        (dict(out_indices=(12,)), ValueError, r'0 to 11, got \(12,\)'),
        (dict(frozen_stages=13), ValueError, 'from -1 to 12, got 13'),
        (dict(drop_path_rate=1.0), ValueError, r'in \[0, 1\)'),
    ],
)
def test_bad_arguments_are_named(kwargs, error, message):
    with pytest.raises(error, match=message):
        ViT(**{'arch': 'tiny', **kwargs})
