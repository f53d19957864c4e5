"""HybridViT against timm's: maps, and the weights that both read from a file."""

import numpy as np
import pytest
import timm
import torch
from support.backbones import assert_maps_close, image, randomize_, save

from vitdense.checkpoint import pretrained
from vitdense.models.backbones import HybridViT

NARROW = dict(embed_dims=48, depth=2, num_heads=3)
SKIPS = ('stem.norm', 'stages.0', 'stages.1')


def theirs(**kwargs) -> torch.nn.Module:
    options = dict(embed_dim=48, depth=2, num_heads=3, pretrained=False, dynamic_img_size=True)
    return timm.create_model('vit_base_r50_s16_224', **{**options, **kwargs}).eval()


def ours(**kwargs) -> HybridViT:
    return HybridViT('base', **{**NARROW, 'final_norm': True, **kwargs}).eval()


def test_maps_equal_timm():
    """Also those of sides that the strides do not divide, for which the position table is resized."""
    reference = randomize_(theirs(num_classes=0))
    model = ours(out_indices=(0, 1, 2, 3, 4))
    model.load_state_dict(reference.state_dict())
    maps = []
    for name in SKIPS:
        layer = reference.patch_embed.backbone.get_submodule(name)
        layer.register_forward_hook(lambda module, inputs, output: maps.append(output))
    reference.blocks[0].register_forward_hook(lambda module, inputs, output: maps.append(output[:, 1:]))
    for hw in [(96, 160), (75, 50)]:
        maps.clear()
        with torch.no_grad():
            found = model(image(hw, batch=2))
            maps.append(reference.forward_features(image(hw, batch=2))[:, 1:])
        grid = [-(-side // 16) for side in hw]
        maps[3:] = [tokens.transpose(1, 2).unflatten(2, grid) for tokens in maps[3:]]
        assert_maps_close(found, maps)


def jax_arrays(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """What Google's ``R50+ViT-B_16.npz`` has for a model of the size of ``model``, random values."""
    rng = np.random.default_rng(0)
    arrays = {}

    def add(name: str, *shape: int) -> None:
        arrays[name] = rng.standard_normal(shape, dtype=np.float32)

    def conv(name: str, weight: torch.Tensor) -> None:
        outputs, inputs, *sides = weight.shape
        add(f'{name}/kernel', *sides, inputs, outputs)

    def norm(name: str, channels: int, *ones: int) -> None:
        add(f'{name}/scale', *ones, channels)
        add(f'{name}/bias', *ones, channels)

    resnet, channels, heads = model.patch_embed.backbone, 48, 3
    conv('conv_root', resnet.stem.conv.weight)
    norm('gn_root', 64, 1, 1, 1)
    for i, stage in enumerate(resnet.stages, start=1):
        for j, unit in enumerate(stage.blocks, start=1):
            for k in (1, 2, 3):
                weight = getattr(unit, f'conv{k}').weight
                conv(f'block{i}/unit{j}/conv{k}', weight)
                norm(f'block{i}/unit{j}/gn{k}', len(weight), 1, 1, 1)
            if unit.downsample is not None:
                conv(f'block{i}/unit{j}/conv_proj', unit.downsample.conv.weight)
                norm(f'block{i}/unit{j}/gn_proj', len(unit.downsample.conv.weight), 1, 1, 1)
    conv('embedding', model.patch_embed.proj.weight)
    add('embedding/bias', channels)
    add('cls', 1, 1, channels)
    add('Transformer/posembed_input/pos_embedding', 1, 1 + 14 * 14, channels)
    for i in range(len(model.blocks)):
        block = f'Transformer/encoderblock_{i}'
        norm(f'{block}/LayerNorm_0', channels)
        norm(f'{block}/LayerNorm_2', channels)
        for part in ('query', 'key', 'value'):
            add(f'{block}/MultiHeadDotProductAttention_1/{part}/kernel', channels, heads, channels // heads)
            add(f'{block}/MultiHeadDotProductAttention_1/{part}/bias', heads, channels // heads)
        add(f'{block}/MultiHeadDotProductAttention_1/out/kernel', heads, channels // heads, channels)
        add(f'{block}/MultiHeadDotProductAttention_1/out/bias', channels)
        for j, (inputs, outputs) in enumerate([(channels, 4 * channels), (4 * channels, channels)]):
            add(f'{block}/MlpBlock_3/Dense_{j}/kernel', inputs, outputs)
            add(f'{block}/MlpBlock_3/Dense_{j}/bias', outputs)
    norm('Transformer/encoder_norm', channels)
    for name in ('pre_logits', 'head'):
        add(f'{name}/kernel', channels, channels)
        add(f'{name}/bias', channels)
    return arrays


def test_files_of_google_are_read_as_timm_reads_them(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(pretrained, 'say', lines.append)
    reference, path = theirs(num_classes=0), tmp_path / 'R50+ViT-B_16.npz'
    np.savez(path, **jax_arrays(reference))
    reference.load_pretrained(str(path))
    model = ours(init_cfg=dict(type='vitdense.Pretrained', checkpoint=str(path)))
    model.init_weights()
    expected = reference.state_dict()
    assert model.state_dict().keys() == expected.keys()
    for key, value in model.state_dict().items():
        assert torch.equal(value, expected[key]), key
    assert lines == [
        f'loaded 100 % of backbone parameters from {path} (JAX), left out 4 (pre_logits/kernel, pre_logits/bias, '
        'head/kernel, head/bias)'
    ]


def test_files_of_timm_load(tmp_path, monkeypatch):
    """With the table resized, and without what the maps that are returned do not need."""
    lines = []
    monkeypatch.setattr(pretrained, 'say', lines.append)
    state = theirs(num_classes=7, img_size=96).state_dict()
    path = save(tmp_path, state)
    model = ours(init_cfg=dict(type='vitdense.Pretrained', checkpoint=path))
    model.init_weights()
    own = model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in own.items() if key != 'pos_embed')
    part = HybridViT('base', out_indices=(0, 1), init_cfg=dict(type='vitdense.Pretrained', checkpoint=path))
    part.init_weights()
    assert all(torch.equal(value, state[key]) for key, value in part.state_dict().items())
    source = f'backbone parameters from {path} (timm)'
    assert lines[0] == f'loaded 100 % of {source}, resized 1 (pos_embed), left out 2 (head.*)'
    assert lines[1].startswith('loaded 100 %')


def test_bottlenecks_count_as_blocks():
    with torch.device('meta'):
        model = HybridViT('base')
    assert (model.depths[:4], model.num_layers) == ((0, 3, 4, 10), 16 + 12)
    stages = 'patch_embed.backbone.stages'
    names = [f'{stages}.0.blocks.0.norm1.bias', f'{stages}.2.blocks.8.conv1.weight', 'pos_embed', 'blocks.11.ls1.gamma']
    assert [model.layer_id(name) for name in names] == [1, 16, 17, 28]


@pytest.mark.parametrize(
    ('kwargs', 'error', 'message'),
    [
        (dict(layers=(3, 4)), ValueError, r'layers must be bottlenecks of three stages, got \(3, 4\)'),
        (dict(layers=(3, 0, 9)), ValueError, 'layers must be bottlenecks of three stages'),
        (dict(patch_size=32, img_size=96), ValueError, 'patch_size must be 16'),
        (dict(out_indices=(0, 15)), ValueError, r'0 to 14, got \(0, 15\)'),
        (dict(layer=(3, 4, 9)), TypeError, "unknown argument 'layer': did you mean 'layers'"),
    ],
)
def test_bad_arguments_are_named(kwargs, error, message):
    with pytest.raises(error, match=message):
        HybridViT('base', **kwargs)
