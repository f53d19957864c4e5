"""ViT-Adapter against recorded outputs of the official code with the same weights, and by property."""

import json
import math
import re

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from support import CONFIGS, SUPPORT
from support.backbones import TOLERANCE, image, layout_of, release, save
from torch import Tensor, nn
from torch.nn import functional as F

from vitdense.checkpoint.pretrained import Pretrained
from vitdense.checkpoint.translate import convert
from vitdense.config.load import load_config
from vitdense.engine.layer_decay import LayerDecayOptimWrapperConstructor
from vitdense.models.backbones import ViT, ViTAdapter
from vitdense.models.backbones.vit_adapter import ADDED
from vitdense.models.layers.layout import to_map

RECORDED = json.loads((SUPPORT / 'original_outputs' / 'vit_adapter.json').read_text())
DETECTION = dict(layer_scale=1.0, window_size=14, global_blocks=(2, 5, 8, 11), add_vit_feature='last')
OPTIONS = {'segmentation': {}, 'detection': DETECTION}
NARROW = dict(arch='tiny', depth=4, embed_dims=48, num_heads=3, img_size=48, conv_inplane=8)
BARE = dict(deform_ratio=0.5, cffn_ratio=0, use_extra_extractor=False, add_vit_feature=None)


def wave(shape, phase: float) -> Tensor:
    """Values from -1 to 1 that look random and are the same everywhere, float64."""
    index = torch.arange(torch.Size(shape).numel())
    return (0.7 * (index.square() % 10007).double() + phase).sin().view(shape)


def weights(code: str) -> dict[str, Tensor]:
    """A state dict of the official ``code`` by a rule, in which every path counts."""
    state = {}
    for phase, (key, shape, _) in enumerate(sorted(layout_of(f'vit_adapter_tiny_{code}')['keys'])):
        values = wave(shape, phase)
        if key.endswith('num_batches_tracked'):
            values = torch.zeros(shape)
        elif key.endswith('running_var') or (len(shape) == 1 and key.endswith('weight')):
            values = 1 + 0.3 * values
        elif key.endswith('sampling_offsets.bias'):
            values = 2 * values
        elif len(shape) == 1:
            values = 0.2 * values
        else:
            values = values if 'embed' in key and 'proj' not in key else values * (2 / values[0].numel()) ** 0.5
        state[key] = values
    return state


def built(code: str, **options) -> ViTAdapter:
    model = ViTAdapter('tiny', **OPTIONS[code], **options)
    model.load_state_dict(convert(weights(code), 'vit_adapter')[0], strict=True)
    return model.eval()


def samples(values: Tensor, count: int) -> Tensor:
    """``count`` values spread over a tensor."""
    return values.flatten()[torch.arange(count) * 7919 % values.numel()]


@pytest.fixture(scope='module')
def picture() -> Tensor:
    return wave(RECORDED['image'], 0.5)


@pytest.mark.parametrize('code', OPTIONS)
def test_maps_equal_those_of_the_official_code(code, picture):
    with torch.no_grad():
        maps = built(code)(picture.float())
    for ours, theirs in zip(maps, RECORDED[code]['maps'], strict=True):
        assert list(ours.shape) == theirs['shape']
        expected = torch.tensor(theirs['values'])
        assert expected.std() > 0.1
        assert (samples(ours, len(expected)) - expected).abs().max() <= TOLERANCE


@pytest.mark.slow
def test_gradients_equal_those_of_the_official_code(picture):
    """In float64: a sample that crosses from pixel to pixel has no smooth gradient."""
    model = built('detection').double()
    sum((x * wave(x.shape, 1.0)).sum() for x in model(picture)).backward()
    parameters = dict(model.named_parameters())
    for name, theirs in RECORDED['detection']['gradients'].items():
        expected = torch.tensor(theirs, dtype=torch.float64)
        ours = samples(parameters[name].grad, len(expected))
        assert expected.abs().max() > 1e-3, name
        assert (ours - expected).abs().max() <= 1e-6 * expected.abs().max(), name


@pytest.mark.parametrize('code', OPTIONS)
def test_names_and_shapes_are_the_official_ones(code):
    """All but those of the class token's position, which the official code has and never uses, and of LayerScale."""
    official = {key: shape for key, shape, _ in layout_of(f'vit_adapter_tiny_{code}')['keys']}
    assert official.pop('pos_embed') == [1, 1 + 196, 192]
    own = {key: list(value.shape) for key, value in ViTAdapter('tiny', **OPTIONS[code]).state_dict().items()}
    assert own.pop('pos_embed') == [1, 196, 192]
    assert {re.sub(r'ls([12])\.gamma', r'gamma\1', key): shape for key, shape in own.items()} == official


PUBLISHED = [
    # millions of parameters: README of the official detection and segmentation code
    ('mask-rcnn_vit-adapter-t_3x_coco', 28),
    ('mask-rcnn_vit-adapter-s_3x_coco', 48),
    ('mask-rcnn_vit-adapter-b_3x_coco', 120),
    ('upernet_vit-adapter-t_8xb2-160k_ade20k-512x512', 36),
    ('upernet_vit-adapter-s_8xb2-160k_ade20k-512x512', 58),
    ('upernet_vit-adapter-b_8xb2-160k_ade20k-512x512', 134),
]


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'published'), PUBLISHED)
def test_models_have_the_published_sizes(name, published):
    cfg = load_config(str(CONFIGS / f'vit_adapter/{name}.py'))
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == published


@pytest.mark.slow
def test_weights_of_a_vit_fill_all_but_the_adapter(tmp_path, log):
    path = save(tmp_path, {'model': release('deit_tiny_patch16_224')})
    options = dict(class_token=False, pos_resize='bicubic')
    plain, model, fresh = ViT('tiny', **options), ViTAdapter('tiny'), ViTAdapter('tiny')
    fresh.load_state_dict(model.state_dict())
    for backbone in (plain, model):
        Pretrained(path)(backbone)
    assert log[0].startswith('loaded 100 %')
    assert '(level_embed, spm.*, interactions.*, up.*, norm1.*, norm2.*, norm3.*, norm4.*), left out ' in log[1]
    loaded = plain.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[name] if re.match(ADDED, name) else loaded[name]), name
    assert not torch.equal(model.blocks[0].attn.qkv.weight, fresh.blocks[0].attn.qkv.weight)


def test_a_file_must_fill_all_of_the_vit(tmp_path):
    """Without two of twelve blocks it does not, in a backbone without an adapter neither."""
    state = release('deit_tiny_patch16_224')
    state = {key: value for key, value in state.items() if not re.match(r'blocks\.[34]\.', key)}
    path = save(tmp_path, state)
    for backbone in (ViTAdapter('tiny'), ViT('tiny', class_token=False)):
        with pytest.raises(ValueError, match=r'\d % .* not of the same layers\.\n  missing: blocks\.3\.norm1\.weight'):
            Pretrained(path)(backbone)


@pytest.mark.parametrize('part', ['', 'interactions.'])
def test_of_a_file_of_the_official_code_the_adapter_counts_too(tmp_path, log, part):
    state = {f'backbone.{key}': value for key, value in weights('detection').items() if not (part and part in key)}
    model = ViTAdapter('tiny', **DETECTION)
    path = save(tmp_path, {'state_dict': {**state, 'neck.fpn_convs.0.conv.weight': torch.zeros(1)}})
    if part:
        with pytest.raises(ValueError, match=r'missing: interactions\.0\.'):
            Pretrained(path)(model)
        return
    Pretrained(path)(model)
    assert log == [f'loaded 100 % of backbone parameters from {path} (ViT-Adapter release), left out 1 (neck.*)']
    torch.testing.assert_close(model.level_embed, weights('detection')['level_embed'].float())


@pytest.mark.parametrize('options', [{}, BARE, dict(window_size=3, global_blocks=(1,), add_vit_feature='last')])
@pytest.mark.parametrize('hw', [(75, 50), (33, 64), (1, 200)])
def test_maps_of_any_size_are_those_of_the_padded_image_cut(hw, options):
    model = ViTAdapter(**{**NARROW, **options}).eval()
    picture = image(hw)
    padded = F.pad(picture, (0, -hw[1] % 32, 0, -hw[0] % 32))
    with torch.no_grad():
        for ours, whole, stride in zip(model(picture), model(padded), model.out_strides, strict=True):
            height, width = (math.ceil(side / stride) for side in hw)
            assert ours.shape == (1, 48, height, width)
            assert torch.equal(ours, whole[:, :, :height, :width])


def test_at_first_the_patches_are_those_of_the_vit_alone():
    """The injectors start at zero (section 3.3), so that pretrained features are left as they are."""
    torch.manual_seed(0)
    model = ViTAdapter(**NARROW, class_token=True).eval()
    plain = ViT('tiny', depth=4, embed_dims=48, num_heads=3, img_size=48, pos_resize='bicubic')
    plain.load_state_dict(
        {key: value for key, value in model.state_dict().items() if not re.match(ADDED, key)}, strict=True
    )
    seen = []
    model.blocks[3].register_forward_hook(lambda module, inputs, x: seen.append(x[:, 1:]))
    with torch.no_grad():
        model(image((64, 96)))
        torch.testing.assert_close(to_map(seen[0], (4, 6)), plain.eval()(image((64, 96)))[0])


@pytest.mark.parametrize('frozen', [0, 2, 4])
def test_the_adapter_always_trains(frozen):
    model = ViTAdapter(**NARROW, frozen_stages=frozen).train()
    sum(x.square().sum() for x in model(image((64, 64), batch=2))).backward()
    for name, parameter in model.named_parameters():
        trains = bool(re.match(ADDED, name)) or model.layer_id(name) > frozen
        assert (parameter.grad is not None) == trains, name
    assert model.spm.training
    assert model.norm1.training


def test_layer_decay_leaves_the_adapter_at_the_full_rate():
    model = nn.ModuleDict({'backbone': ViTAdapter(**NARROW)})
    rates = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1))
    constructor = LayerDecayOptimWrapperConstructor(rates, dict(decay_rate=0.5))
    groups = constructor(model).optimizer.param_groups
    found = {id(p): group['lr'] for group in groups for p in group['params']}
    for name, parameter in model['backbone'].named_parameters():
        block = re.match(r'blocks\.(\d)', name)
        expected = 1.0 if re.match(ADDED, name) else 0.5 ** (4 - int(block[1]) if block else 5)
        assert found[id(parameter)] == expected, name


def test_without_the_map_of_stride_4_its_layers_are_left_out():
    model = ViTAdapter(**NARROW, out_indices=(1, 3))
    assert {name.split('.')[0] for name in model.state_dict()} >= {'norm2', 'norm4'}
    assert not [name for name in model.state_dict() if re.match(r'up\.|spm\.fc1|norm[13]', name)]


def test_norms_are_those_of_the_config():
    model = ViTAdapter(**NARROW, norm_cfg=dict(type='SyncBN'))
    assert not [name for name, module in model.named_modules() if type(module) is nn.BatchNorm2d]
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in model.modules()) == 6 + 4
    assert sum(isinstance(module, nn.BatchNorm2d) for module in ViTAdapter(**NARROW).modules()) == 6 + 4


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        (dict(arch='tinny'), ValueError, "unknown arch 'tinny': did you mean 'tiny'"),
        (dict(deform_ration=0.5), TypeError, "unknown argument 'deform_ration': did you mean 'deform_ratio'"),
        (dict(final_norm=True), TypeError, 'final_norm'),
        (dict(depth=6), ValueError, 'depth must be a multiple of 4.* got 6'),
        (dict(patch_size=8), ValueError, 'patch_size must be 16.* got 8'),
        (dict(add_vit_feature='first'), ValueError, "unknown add_vit_feature 'first'"),
        (dict(deform_num_heads=5), ValueError, 'multiple of num_heads = 5'),
        (dict(out_indices=(0, 4)), ValueError, r'out of 0 to 3, got \(0, 4\)'),
        (dict(frozen_stages=5), ValueError, 'from -1 to 4, got 5'),
    ],
)
def test_bad_arguments_are_named(options, error, message):
    with pytest.raises(error, match=message):
        ViTAdapter(**{**NARROW, **options})
