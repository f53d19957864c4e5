"""ViT, ViT-Adapter, HybridViT and YOLOS in the layouts of others, as these write and read them."""

import pytest
import timm
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from mmseg.models.backbones import VisionTransformer as MMSegViT
from safetensors.torch import load_file, save_file
from support.backbones import TOLERANCE, assert_maps_close, image, layout_of, randomize_
from torch import Tensor, nn

from vitdense.checkpoint.layouts import FAMILIES
from vitdense.checkpoint.layouts.family import Layout
from vitdense.checkpoint.translate import convert, find_layout, to_ours, to_theirs
from vitdense.models.backbones import YOLOS, HybridViT, ViT, ViTAdapter
from vitdense.models.heads import YOLOSHead

OWNERS = ('vit', 'vit_adapter', 'hybrid_vit', 'yolos', 'yolos_detector')
NARROW = dict(embed_dims=48, num_heads=3, depth=2, img_size=48)
THEIRS = dict(hidden_size=48, num_attention_heads=3, num_hidden_layers=2, image_size=48)
VITDET = dict(class_token=False, pos_resize='bicubic', rel_pos='decomposed')
BEIT = dict(pos_embed=None, rel_pos='bias_table', layer_scale=0.1)
ADAPTER = dict(arch='tiny', depth=4, embed_dims=48, num_heads=3, conv_inplane=8)
WIDE = (48, 80)


def layout(family: str, name: str) -> Layout:
    """The first layout of that name, or that is written under it."""
    return next(layout for layout in FAMILIES[family].layouts if name in (layout.name, *layout.targets))


def small(**kwargs) -> ViT:
    return randomize_(ViT('tiny', **{**NARROW, **kwargs}))


def yolos(**kwargs) -> nn.ModuleDict:
    """Backbone and head of a detector of images of 32 x 48 pixels."""
    sizes = dict(embed_dims=48, num_heads=3, depth=3, img_size=(32, 48), det_tokens=5)
    return randomize_(nn.ModuleDict(dict(backbone=YOLOS('small', **sizes, **kwargs), bbox_head=YOLOSHead(4, 48))))


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def written(model: nn.Module, family: str, target: str) -> dict[str, Tensor]:
    """The weights of ``model`` in the layout ``target``, after they have made the way there and back."""
    state, layout_ = model.state_dict(), layout(family, target)
    before = {key: value.clone() for key, value in state.items()}
    theirs = to_theirs(state, layout_)
    copy = {key: value.clone() for key, value in theirs.items()}
    back, dropped = to_ours(theirs, layout_)
    assert find_layout(theirs, family) is layout_
    assert dropped == []
    assert same(back, before)
    assert same(state, before)  # neither way changes what it is given
    assert same(theirs, copy)
    return theirs


def shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}


def released(name: str, *without: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a released file but for those that begin so."""
    return {key: tuple(shape) for key, shape, *_ in layout_of(name)['keys'] if not key.startswith(without)}


def on_hub(model: transformers.PreTrainedModel, folder, state: dict[str, Tensor]) -> transformers.PreTrainedModel:
    """``model`` from a folder in which ``state`` is in the place of what it saved, under the same names."""
    model.save_pretrained(folder)
    assert shapes(state) == shapes(load_file(folder / 'model.safetensors'))
    save_file(state, folder / 'model.safetensors', metadata=dict(format='pt'))
    return type(model).from_pretrained(folder).eval()


def without_prefix(tokens: Tensor, model: ViT, hw: tuple[int, int]) -> Tensor:
    return tokens[:, model.arch.num_prefix :].transpose(1, 2).unflatten(2, [side // 16 for side in hw])


@pytest.mark.parametrize(
    ('name', 'ours', 'theirs'),
    [
        ('vit_tiny_patch16_224', dict(), dict()),
        ('deit_tiny_distilled_patch16_224', dict(dist_token=True), dict()),
        ('vit_tiny_patch16_224', dict(reg_tokens=2, layer_scale=0.1), dict(reg_tokens=2, init_values=0.1)),
        (
            'vit_tiny_patch16_224',
            dict(class_token=False, qkv_bias=False),
            dict(class_token=False, qkv_bias=False, global_pool='avg', fc_norm=False),
        ),
    ],
)
def test_timm_reads_what_is_written(name, ours, theirs):
    model = small(final_norm=True, **ours)
    sizes = dict(embed_dim=48, num_heads=3, depth=2, img_size=48, num_classes=0, dynamic_img_size=True)
    peer = timm.create_model(name, **sizes, **theirs).eval()
    state = written(model, 'vit', 'timm')
    assert shapes(state) == shapes(peer.state_dict())
    peer.load_state_dict(state)
    with torch.no_grad():
        assert_maps_close(model(image(WIDE)), [without_prefix(peer.forward_features(image(WIDE)), model, WIDE)])


def test_timm_reads_a_beit():
    """Whose LayerScale has another name than that of timm's other models."""
    model = small(img_size=WIDE, **BEIT)
    peer = timm.create_model(
        'beit_base_patch16_224', embed_dim=48, num_heads=3, depth=2, img_size=WIDE, num_classes=0
    ).eval()
    state = written(model, 'vit', 'timm')
    expected = shapes(peer.state_dict())
    assert {key: shape for key, shape in expected.items() if not key.startswith('fc_norm.')} == shapes(state)
    assert state.keys() >= {'blocks.1.gamma_1', 'blocks.0.attn.q_bias'}
    peer.load_state_dict(state, strict=False)
    with torch.no_grad():
        assert_maps_close(model(image(WIDE)), peer.forward_intermediates(image(WIDE), intermediates_only=True)[-1:])


@pytest.mark.parametrize(('name', 'arch'), [('deit_small_patch16_224', 'small'), ('mae_vit_base', 'base')])
def test_names_and_shapes_are_those_of_deit_and_mae(name, arch):
    with torch.device('meta'):
        state = to_theirs(ViT(arch, final_norm=True).state_dict(), layout('vit', 'official'))
    assert shapes(state) == released(name, 'head.')


def test_names_and_shapes_are_those_of_detectron2():
    with torch.device('meta'):
        model = ViT('base', **VITDET, rel_pos_size=1024, window_size=14, global_blocks=(2, 5, 8, 11))
        state = to_theirs(model.state_dict(), layout('vit', 'detectron2'))
    neck = 'backbone.simfp_'
    assert {f'backbone.{key}': shape for key, shape in shapes(state).items()} == released('vitdet_vit_b', neck)


def test_detectron2_keeps_all_values():
    state = written(small(**VITDET), 'vit', 'detectron2')
    assert state['net.pos_embed'].shape == (1, 10, 48)
    assert not state['net.pos_embed'][:, 0].any()


@pytest.mark.parametrize('kind', ['ViT', 'DeiT'])
def test_transformers_reads_what_is_written(tmp_path, kind):
    model = small(dist_token=kind == 'DeiT', pos_resize='bicubic', final_norm=True)
    config = getattr(transformers, f'{kind}Config')(**THEIRS, intermediate_size=192, layer_norm_eps=1e-6)
    peer = getattr(transformers, f'{kind}Model')(config, add_pooling_layer=False)
    peer = on_hub(peer, tmp_path, written(model, 'vit', 'transformers'))
    with torch.no_grad():
        tokens = peer(image(WIDE), interpolate_pos_encoding=True).last_hidden_state
        assert_maps_close(model(image(WIDE)), [without_prefix(tokens, model, WIDE)])


def test_the_decoder_of_a_mae_of_transformers_is_dropped(tmp_path):
    """As its hub has it, with the encoder's blocks as in a ViT."""
    model = small(final_norm=True)
    sizes = dict(decoder_hidden_size=32, decoder_num_hidden_layers=1, decoder_num_attention_heads=2)
    config = transformers.ViTMAEConfig(**THEIRS, **sizes, intermediate_size=192, layer_norm_eps=1e-6)
    peer = transformers.ViTMAEForPreTraining(config)
    peer.save_pretrained(tmp_path)
    converted, dropped = convert(load_file(tmp_path / 'model.safetensors'), 'vit')
    assert shapes(converted) == shapes(model.state_dict())
    assert torch.equal(converted['blocks.1.mlp.fc2.weight'], peer.state_dict()['vit.layers.1.mlp.fc2.weight'])
    assert dropped
    assert all(key.startswith('decoder.') for key in dropped)


def test_vitdet_of_transformers_reads_what_is_written(tmp_path):
    model = small(**VITDET, window_size=2, global_blocks=(1,))
    windows = dict(use_relative_position_embeddings=True, window_size=2, window_block_indices=[0])
    sizes = dict(**THEIRS, pretrain_image_size=48)
    peer = transformers.VitDetBackbone(transformers.VitDetConfig(**sizes, **windows, out_features=['stage2']))
    peer = on_hub(peer, tmp_path, written(model, 'vit', 'transformers ViTDet'))
    with torch.no_grad():
        assert_maps_close(model(image(WIDE)), peer(image(WIDE)).feature_maps)


def test_mmseg_reads_what_is_written():
    model = small(pos_resize='bicubic', final_norm=True)
    sizes = dict(embed_dims=48, num_heads=3, num_layers=2, img_size=48, interpolate_mode='bicubic')
    peer = MMSegViT(**sizes, patch_bias=True, norm_cfg=dict(type='LN', eps=1e-6), final_norm=True)
    state = written(model, 'vit', 'mmseg')
    assert shapes(state) == shapes(peer.state_dict())
    peer.load_state_dict(state)
    peer.eval()
    with torch.no_grad():
        assert_maps_close(model(image(WIDE)), peer(image(WIDE)))


def test_timm_reads_a_hybrid():
    model = randomize_(HybridViT('base', embed_dims=48, num_heads=3, depth=2, final_norm=True))
    sizes = dict(embed_dim=48, num_heads=3, depth=2, num_classes=0, dynamic_img_size=True)
    peer = timm.create_model('vit_base_r50_s16_224', **sizes).eval()
    state = written(model, 'hybrid_vit', 'timm')
    assert shapes(state) == shapes(peer.state_dict())
    peer.load_state_dict(state)
    with torch.no_grad():
        assert_maps_close(model(image(WIDE)), [without_prefix(peer.forward_features(image(WIDE)), model, WIDE)])


@pytest.mark.parametrize('code', ['detection', 'segmentation'])
def test_names_and_shapes_are_those_of_vit_adapter(code):
    detection = dict(layer_scale=1.0, window_size=14, global_blocks=(2, 5, 8, 11))
    with torch.device('meta'):
        model = ViTAdapter('tiny', **(detection if code == 'detection' else {}))
        state = to_theirs(model.state_dict(), layout('vit_adapter', 'official'))
    assert shapes(state) == released(f'vit_adapter_tiny_{code}')


def test_vit_adapter_keeps_all_values():
    state = written(randomize_(ViTAdapter(**ADAPTER, img_size=48, layer_scale=0.1)), 'vit_adapter', 'official')
    assert state['pos_embed'].shape == (1, 10, 48)
    assert not state['pos_embed'][:, 0].any()


@pytest.mark.parametrize(
    ('family', 'build'),
    [
        ('vit', lambda: ViT('tiny', **NARROW, reg_tokens=2, dist_token=True, layer_scale=0.1, final_norm=True)),
        ('vit', lambda: ViT('tiny', **NARROW, **VITDET)),
        ('vit', lambda: ViT('tiny', **NARROW, **BEIT)),
        ('vit_adapter', lambda: ViTAdapter(**ADAPTER, img_size=48)),
        ('vit_adapter', lambda: ViTAdapter(**ADAPTER, img_size=(48, 64), layer_scale=0.1)),
        ('vit_adapter', lambda: ViTAdapter(**ADAPTER, img_size=48, class_token=True)),
        ('hybrid_vit', lambda: HybridViT('base', embed_dims=48, num_heads=3, depth=1, final_norm=True)),
        ('yolos', lambda: yolos()['backbone']),
    ],
)
def test_our_own_files_are_read_as_they_are(family, build):
    state = build().state_dict()
    converted, dropped = convert({'state_dict': {f'backbone.{key}': value for key, value in state.items()}}, family)
    assert same(converted, state)
    assert dropped == []


def test_indices_in_files_of_beit_are_dropped():
    model = small(**BEIT)
    index = {f'blocks.{i}.attn.relative_position_index': torch.zeros(10, 10, dtype=torch.long) for i in range(2)}
    converted, dropped = convert({'model': to_theirs(model.state_dict(), layout('vit', 'official')) | index}, 'vit')
    assert same(converted, model.state_dict())
    assert dropped == list(index)


@given(side=st.integers(1, 40))
def test_the_class_entry_comes_and_goes(side):
    state = {'pos_embed': torch.rand(1, side**2, 2)}
    for name in ('detectron2', 'transformers ViTDet'):
        layout_ = layout('vit', name)
        theirs = layout_.inverse(state)
        assert theirs['pos_embed'].shape == (1, 1 + side**2, 2)
        assert same(layout_.tensors(theirs), state)
        assert same(layout_.tensors(state), state)


@pytest.mark.parametrize(('arch', 'name'), [('tiny', 'yolos_ti'), ('small', 'yolos_s')])
def test_names_and_shapes_are_those_of_yolos(arch, name):
    with torch.device('meta'):
        backbone = YOLOS(arch)
        model = nn.ModuleDict(dict(backbone=backbone, bbox_head=YOLOSHead(91, backbone.out_channels[0])))
        whole = to_theirs(model.state_dict(), layout('yolos_detector', 'official'))
        alone = to_theirs(backbone.state_dict(), layout('yolos', 'official'))
    assert shapes(whole) == released(name)
    assert {f'backbone.{key}': shape for key, shape in shapes(alone).items()} == released(name, 'class_', 'bbox_')


@pytest.mark.parametrize('mid_pos_embed', [True, False])
def test_transformers_reads_a_yolos(tmp_path, mid_pos_embed):
    model = yolos(mid_pos_embed=mid_pos_embed)
    written(model, 'yolos_detector', 'official')
    config = transformers.YolosConfig(
        **THEIRS | dict(num_hidden_layers=3, image_size=[32, 48]),
        intermediate_size=192,
        layer_norm_eps=1e-6,
        num_detection_tokens=5,
        use_mid_position_embeddings=mid_pos_embed,
        num_labels=4,
    )
    detector = transformers.YolosForObjectDetection(config)
    detector = on_hub(detector, tmp_path / 'detector', written(model, 'yolos_detector', 'transformers'))
    backbone = transformers.YolosModel(config, add_pooling_layer=False)
    backbone = on_hub(backbone, tmp_path / 'backbone', written(model['backbone'], 'yolos', 'transformers'))
    with torch.no_grad():
        tokens = model['backbone'](image(WIDE))
        logits, boxes = model['bbox_head'](tokens)
        found = detector(image(WIDE))
        assert_maps_close(tokens, [backbone(image(WIDE)).last_hidden_state[:, -5:]])
    assert (logits[0] - found.logits).abs().max() <= TOLERANCE
    assert (boxes[0] - found.pred_boxes).abs().max() <= TOLERANCE


@pytest.mark.parametrize(
    ('target', 'options', 'message'),
    [
        ('detectron2', dict(), 'cls_token has no place in this layout'),
        ('detectron2', dict(class_token=False, reg_tokens=2), 'reg_token has no place in this layout'),
        ('detectron2', dict(class_token=False, layer_scale=0.1), r'blocks\.0\.ls1\.gamma.* detectron2 layout'),
        ('detectron2', dict(class_token=False, img_size=(48, 64)), 'pos_embed with 12 entries is not .* square'),
        ('transformers ViTDet', dict(), 'cls_token has no place in this layout'),
        ('transformers ViTDet', dict(class_token=False, final_norm=True), r'norm\.weight.* transformers ViTDet layout'),
        ('transformers', dict(class_token=False), 'cls_token is missing'),
        ('transformers', dict(reg_tokens=1), 'reg_token.* transformers ViT/DeiT layout'),
        ('transformers', BEIT, r'does not belong to the transformers ViT/DeiT layout'),
        ('mmseg', dict(class_token=False), 'cls_token is missing'),
        ('mmseg', dict(dist_token=True), 'dist_token.* mmseg layout'),
        ('mmseg', dict(layer_scale=0.1), r'blocks\.0\.ls1\.gamma.* mmseg layout'),
    ],
)
def test_what_has_no_place_is_refused(target, options, message):
    with pytest.raises(ValueError, match=message):
        to_theirs(ViT('tiny', **{**NARROW, **options}).state_dict(), layout('vit', target))


def test_an_adapter_with_a_class_token_has_no_place_in_the_release():
    model = ViTAdapter(**ADAPTER, img_size=48, class_token=True)
    with pytest.raises(ValueError, match='cls_token has no place in this layout'):
        to_theirs(model.state_dict(), layout('vit_adapter', 'official'))


@pytest.mark.parametrize(
    ('key', 'message'),
    [
        ('encoder.layer.0.attention.attention.key.weight', r"'blocks\.0\.attn\.k\.weight' is missing"),
        ('encoder.layer.0.attention.attention.query.bias', r"'blocks\.0\.attn\.q\.bias' is missing"),
    ],
)
def test_a_part_of_queries_keys_and_values_is_an_error(key, message):
    state = to_theirs(small().state_dict(), layout('vit', 'transformers'))
    del state[key]
    with pytest.raises(ValueError, match=message):
        convert(state, 'vit')
