"""PVT, PVTv2, Swin and SwinV2 in the layouts of others, as these write and read them."""

import re
from collections.abc import Callable
from functools import partial

import pytest
import timm
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from mmdet.models.backbones import PyramidVisionTransformer as MMDetPVT
from mmdet.models.backbones import PyramidVisionTransformerV2 as MMDetPVTv2
from mmdet.models.backbones import SwinTransformer as MMDetSwin
from mmdet.models.backbones.pvt import AbsolutePositionEmbedding
from mmengine import ConfigDict
from mmseg.models.backbones import SwinTransformer as MMSegSwin
from safetensors.torch import load_file, save_file
from support.backbones import assert_maps_close, image, layout_of, randomize_
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table_simple
from torch import Tensor, nn
from torch.nn import functional as F

from vitdense.checkpoint.into_model import resize_tables
from vitdense.checkpoint.layouts import FAMILIES, family_of
from vitdense.checkpoint.layouts.family import Layout
from vitdense.checkpoint.layouts.pvt import resize_square
from vitdense.checkpoint.layouts.swin import resize_window
from vitdense.checkpoint.translate import recognise, to_ours, to_theirs
from vitdense.models.backbones import PVT, PVTv2, Swin, SwinV2

DEPTHS = (1, 2, 1, 1)
CHANNELS = (8, 16, 40, 64)
HEADS = (1, 2, 4, 8)
BUILD = {
    'pvt': partial(PVT, 'tiny', depths=DEPTHS, embed_dims=CHANNELS),
    'pvt_v2': partial(PVTv2, 'b0', depths=DEPTHS, embed_dims=CHANNELS),
    'swin': partial(Swin, 'tiny', depths=DEPTHS, embed_dims=16, num_heads=HEADS),
    'swin_v2': partial(SwinV2, 'tiny', depths=DEPTHS, embed_dims=16, num_heads=HEADS),
}
BUFFERS = r'relative_position_index|relative_coords_table|attn_mask'
MAP_NORM = re.compile(r'norm\d\.')
LAYOUTS = [(family, layout.targets[0]) for family in BUILD for layout in FAMILIES[family].layouts]
WITHOUT_MAP_NORMS = [('swin', 'timm'), ('swin_v2', 'timm'), ('swin_v2', 'transformers')]


def layout(family: str, target: str) -> Layout:
    return next(layout for layout in FAMILIES[family].layouts if target in layout.targets)


def small(family: str, **kwargs) -> nn.Module:
    torch.manual_seed(0)
    return randomize_(BUILD[family](**kwargs))


def parameters(model: nn.Module, family: str, target: str) -> dict[str, Tensor]:
    """What ``target`` has a place for: not the norms of maps in classifiers and in SwinV2 of transformers."""
    state = model.state_dict()
    if (family, target) in WITHOUT_MAP_NORMS:
        return {key: value for key, value in state.items() if not MAP_NORM.match(key)}
    return state


def shapes(state: dict[str, Tensor], without: str = '(?!)') -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items() if not re.search(without, key)}


def released(keys: list, without: str = '(?!)') -> dict[str, tuple[int, ...]]:
    return {key: tuple(shape) for key, shape, _ in keys if not re.search(without, key)}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def copy_eps(ours: nn.Module, theirs: nn.Module, rename: Callable[[str], str]) -> None:
    """Give ``theirs`` the eps of our norms, which are those of the release; others are built with one for all."""
    for name, module in ours.named_modules():
        if isinstance(module, nn.LayerNorm):
            norm = theirs.get_submodule(rename(f'{name}.weight').removesuffix('.weight'))
            assert isinstance(norm, nn.LayerNorm)
            norm.eps = module.eps


def normed(maps) -> list[Tensor]:
    """Maps as models return them whose norms of maps are as they start, ones and zeros."""
    return [F.layer_norm(x.movedim(1, 3), x.shape[1:2]).movedim(3, 1) for x in maps]


def with_fresh_map_norms(model: nn.Module) -> nn.Module:
    for name, parameter in model.named_parameters():
        if MAP_NORM.match(name):
            nn.init.constant_(parameter, float(name.endswith('weight')))
    return model


@pytest.mark.parametrize(('family', 'target'), LAYOUTS)
def test_there_and_back(family, target):
    state = parameters(small(family), family, target)
    before = {key: value.clone() for key, value in state.items()}
    theirs = to_theirs(state, layout(family, target))
    copy = {key: value.clone() for key, value in theirs.items()}
    back, dropped = to_ours(theirs, layout(family, target))
    assert same(back, before)
    assert dropped == []
    assert recognise(theirs) == (family, layout(family, target))
    assert same(state, before)  # neither way changes what it is given
    assert same(theirs, copy)


@pytest.mark.parametrize('family', BUILD)
def test_a_model_of_fewer_stages_goes_there_and_back(family):
    for target in {target for owner, target in LAYOUTS if owner == family}:
        state = parameters(small(family, out_indices=(0, 1)), family, target)
        assert same(to_ours(to_theirs(state, layout(family, target)), layout(family, target))[0], state)


@pytest.mark.parametrize(
    ('name', 'build'),
    [
        ('pvt_tiny', partial(PVT, 'tiny')),
        ('pvt_v2_b0', partial(PVTv2, 'b0')),
        ('pvt_v2_b2_li', partial(PVTv2, 'b2_li')),
        ('swin_tiny', partial(Swin, 'tiny')),
        ('swin_base', partial(Swin, 'base')),
    ],
)
def test_official_names_are_those_of_the_detection_code(name, build):
    with torch.device('meta'):
        model = build()
        state = to_theirs(model.state_dict(), layout(family_of(type(model)), 'official'))
    assert shapes(state) == released(layout_of(name)['extra_layouts']['detection_backbone'], BUFFERS)


def test_official_names_of_swin_v2_are_those_of_the_classifier():
    """And the norms of maps, as in the detection code of version 1."""
    with torch.device('meta'):
        state = to_theirs(SwinV2('tiny').state_dict(), layout('swin_v2', 'official'))
    assert shapes(state, r'^norm\d') == released(layout_of('swinv2_tiny')['keys'], rf'^norm\.|^head\.|{BUFFERS}')
    assert state.keys() >= {'norm0.weight', 'norm3.bias'}


@given(side=st.integers(1, 40))
def test_the_class_entry_comes_and_goes(side):
    state = {'pos_embed3': torch.rand(1, side**2, 2), 'pos_embed4': torch.rand(1, side**2, 2)}
    official = layout('pvt', 'official')
    theirs = to_theirs(state, official)
    assert shapes(theirs) == {'pos_embed3': (1, side**2, 2), 'pos_embed4': (1, 1 + side**2, 2)}
    assert not theirs['pos_embed4'][:, 0].any()
    assert same(to_ours(theirs, official)[0], state)
    assert same(to_ours(state, official)[0], state)  # a file of ours, which has none


@pytest.mark.parametrize(
    ('family', 'peer', 'hw'),
    [
        ('pvt', partial(MMDetPVT, embed_dims=8, num_layers=DEPTHS), (64, 96)),
        ('pvt_v2', partial(MMDetPVTv2, embed_dims=8, num_layers=DEPTHS), (70, 101)),
        ('swin', partial(MMDetSwin, embed_dims=16, depths=DEPTHS, num_heads=HEADS), (70, 101)),
        ('swin', partial(MMSegSwin, embed_dims=16, depths=DEPTHS, num_heads=HEADS), (70, 101)),
    ],
)
@torch.no_grad()
def test_mmdet_and_mmseg_read_what_is_written(family, peer, hw):
    ours, theirs, table = small(family), peer(), layout(family, 'mmdet')
    state = to_theirs(ours.state_dict(), table)
    assert shapes(state) == shapes(theirs.state_dict(), BUFFERS)
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(re.search(BUFFERS, key) for key in missing)
    copy_eps(ours, theirs, table.to_their_name)
    theirs.eval()
    assert_maps_close(ours(image(hw, batch=2)), theirs(image(hw, batch=2)))


@pytest.mark.parametrize(
    ('family', 'name', 'sizes', 'hw'),
    [
        ('pvt_v2', 'pvt_v2_b0', dict(embed_dims=CHANNELS), (70, 101)),
        ('swin', 'swin_tiny_patch4_window7_224', dict(embed_dim=16, num_heads=HEADS), (224, 448)),
        ('swin_v2', 'swinv2_tiny_window8_256', dict(embed_dim=16, num_heads=HEADS), (256, 512)),
    ],
)
@torch.no_grad()
def test_timm_reads_what_is_written(family, name, sizes, hw):
    """timm shifts maps before it pads them, so sizes of Swin are such that nothing is padded."""
    if family != 'pvt_v2':
        sizes = dict(sizes, img_size=hw, always_partition=True)
    theirs = timm.create_model(name, num_classes=0, depths=DEPTHS, **sizes)
    ours = with_fresh_map_norms(small(family)) if family != 'pvt_v2' else small(family)
    state = to_theirs(parameters(ours, family, 'timm'), layout(family, 'timm'))
    assert shapes(state) == shapes(theirs.state_dict(), r'^norm\.')
    theirs.load_state_dict(theirs.state_dict() | state)
    maps = theirs.eval().forward_intermediates(image(hw), intermediates_only=True)
    assert_maps_close(ours(image(hw)), normed(maps) if family != 'pvt_v2' else maps)


SWIN_CONFIG = dict(depths=DEPTHS, embed_dim=16, num_heads=HEADS)
PVT_CONFIG = dict(depths=DEPTHS, hidden_sizes=CHANNELS, layer_norm_eps=1e-6)
STAGES = dict(out_features=['stage1', 'stage2', 'stage3', 'stage4'])
HUB = {
    'pvt': ('Pvt', dict(PVT_CONFIG, mlp_ratios=[8, 8, 4, 4])),
    'pvt_v2': ('PvtV2', PVT_CONFIG | STAGES),
    'swin': ('Swin', SWIN_CONFIG | STAGES),
    'swin_v2': ('Swinv2', SWIN_CONFIG | STAGES | dict(window_size=8, image_size=1024)),
}


def hub(family: str, kind: str) -> transformers.PreTrainedModel:
    name, sizes = HUB[family]
    return getattr(transformers, name + kind)(getattr(transformers, f'{name}Config')(**sizes))


def from_hub(model: transformers.PreTrainedModel, state: dict[str, Tensor], folder) -> transformers.PreTrainedModel:
    """``model`` as it reads a file of ``state``, in which its class token and its last norm may be missing."""
    model.save_pretrained(folder)
    save_file({key: value.contiguous() for key, value in state.items()}, folder / 'model.safetensors', {'format': 'pt'})
    model, info = type(model).from_pretrained(folder, output_loading_info=True)
    assert not info['unexpected_keys']
    assert not info['mismatched_keys']
    assert all(re.search(r'(cls_token|layer_?norm\.(weight|bias))$', key) for key in info['missing_keys'])
    assert len(info['missing_keys']) <= 3
    return model.eval()


@pytest.mark.parametrize('family', HUB)
def test_names_are_those_of_the_hub(family, tmp_path):
    """But for the classifier and the norm and the token before it, and what only the backbone of Swin has."""
    hub(family, 'ForImageClassification').save_pretrained(tmp_path)
    state = to_theirs(parameters(small(family), family, 'transformers'), layout(family, 'transformers'))
    head = r'^classifier\.|cls_token$|^(pvt\.encoder\.layer_norm|swinv?2?\.layernorm)\.'
    assert shapes(state, '^hidden_states_norms') == shapes(load_file(tmp_path / 'model.safetensors'), head)


@pytest.mark.parametrize('family', ['pvt_v2', 'swin', 'swin_v2'])
@torch.no_grad()
def test_transformers_reads_what_is_written(family, tmp_path):
    ours, table = small(family), layout(family, 'transformers')
    if family == 'swin_v2':
        with_fresh_map_norms(ours)
    state = to_theirs(parameters(ours, family, 'transformers'), table)
    theirs = from_hub(hub(family, 'Backbone'), state, tmp_path)
    if family == 'pvt_v2':
        copy_eps(ours, theirs, lambda name: table.to_their_name(name).removeprefix('pvt_v2.'))
    hw = (260, 301) if family == 'swin_v2' else (70, 101)  # theirs cuts a map that is smaller than a window otherwise
    maps = theirs(image(hw, batch=2)).feature_maps
    assert_maps_close(ours(image(hw, batch=2)), normed(maps) if family == 'swin_v2' else maps)


@torch.no_grad()
def test_pvt_of_transformers_reads_what_is_written(tmp_path):
    """Up to the last stage, which has a class token there, and at the one size that works there."""
    ours, table = small('pvt'), layout('pvt', 'transformers')
    theirs = from_hub(hub('pvt', 'Model'), to_theirs(ours.state_dict(), table), tmp_path)
    copy_eps(ours, theirs, lambda name: table.to_their_name(name).removeprefix('pvt.'))
    blocks = theirs(image((224, 224)), output_hidden_states=True).hidden_states
    tokens = [blocks[i] for i in (0, 2, 3)]  # the last blocks of the first three stages, by DEPTHS
    maps = [x.transpose(1, 2).unflatten(2, (side, side)) for x, side in zip(tokens, (56, 28, 14), strict=True)]
    assert_maps_close(ours(image((224, 224)))[:3], maps)


@pytest.mark.parametrize(('family', 'target'), WITHOUT_MAP_NORMS)
def test_norms_of_maps_are_refused_by_who_has_none(family, target):
    with pytest.raises(ValueError, match=rf"key 'norm0\.weight' does not belong to the {target} layout"):
        to_theirs(small(family).state_dict(), layout(family, target))


@pytest.mark.parametrize(
    ('family', 'target', 'key'),
    [
        ('pvt', 'official', 'pos_embed'),
        ('pvt', 'official', 'norm1.weight'),  # of version 2
        ('pvt', 'mmdet', 'layers.0.1.0.norm1.weight'),  # the position table has this place
        ('pvt', 'transformers', 'pvt_v2.encoder.layers.0.layer_norm.weight'),
        ('pvt_v2', 'official', 'pos_embed1'),
        ('pvt_v2', 'timm', 'stages.0.downsample.proj.weight'),
        ('swin', 'official', 'absolute_pos_embed'),
        ('swin', 'official', 'layers.0.blocks.0.attn.logit_scale'),  # of version 2
        ('swin', 'timm', 'layers.0.downsample.norm.weight'),
        ('swin', 'mmdet', 'stages.0.blocks.0.attn.relative_position_bias_table'),
        ('swin', 'transformers', 'hidden_states_norms.stage0.weight'),
        ('swin_v2', 'official', 'layers.0.blocks.0.attn.relative_position_bias_table'),  # of version 1
        ('swin_v2', 'transformers', 'hidden_states_norms.stage1.weight'),
    ],
)
def test_unknown_keys_are_refused(family, target, key):
    table = layout(family, target)
    with pytest.raises(ValueError, match=f'key {key!r} does not belong to the {table.name} layout'):
        to_ours({key: torch.zeros(1)}, table)


@pytest.mark.parametrize(('family', 'part'), [('pvt', 'block1.0.attn.v'), ('swin', 'layers.0.blocks.0.attn.value')])
def test_a_missing_projection_is_named(family, part):
    table = layout(family, 'transformers')
    theirs = to_theirs(small(family).state_dict(), table)
    del theirs[next(key for key in theirs if key.endswith('value.weight'))]
    with pytest.raises(ValueError, match=rf"'{part}\.weight' is missing in the transformers layout"):
        to_ours(theirs, table)


@pytest.mark.parametrize(('old', 'new'), [(7, 12), (12, 7), (7, 8), (16, 4), (2, 3)])
def test_bias_tables_are_resized_as_in_timm(old, new):
    table = torch.randn((2 * old - 1) ** 2, 3, generator=torch.Generator().manual_seed(0))
    shape = ((2 * new - 1) ** 2, 3)
    theirs = resize_rel_pos_bias_table_simple(table, (new, new), shape)
    assert theirs.shape == shape
    torch.testing.assert_close(resize_window(table, shape), theirs)


@pytest.mark.parametrize('window', [4, 10])
@torch.no_grad()
def test_a_swin_of_another_window_is_that_of_mmdet(window, tmp_path):
    """mmdet resizes the tables of a file when it initialises a model from it."""
    ours, resized = small('swin'), small('swin', window_size=window)
    state, names = resize_tables(ours.state_dict(), resized)
    assert len(names) == sum(DEPTHS)
    resized.load_state_dict(state)
    written = to_theirs(ours.state_dict(), layout('swin', 'mmdet'))
    torch.save({'state_dict': {f'backbone.{key}': value for key, value in written.items()}}, tmp_path / 'swin.pth')
    init = ConfigDict(type='Pretrained', checkpoint=str(tmp_path / 'swin.pth'))
    theirs = MMDetSwin(embed_dims=16, depths=DEPTHS, num_heads=HEADS, window_size=window, init_cfg=init)
    theirs.init_weights()
    theirs.eval()
    assert_maps_close(resized(image((70, 101))), theirs(image((70, 101))))


@pytest.mark.parametrize(('old', 'new'), [(7, 12), (12, 7), (14, 16), (56, 40), (28, 96)])
def test_position_tables_are_resized_as_in_mmdet(old, new):
    table = torch.randn(1, old**2, 8, generator=torch.Generator().manual_seed(0))
    theirs = AbsolutePositionEmbedding(pos_shape=old, pos_dim=8).resize_pos_embed(table, (new, new))
    assert theirs.shape == (1, new**2, 8)
    torch.testing.assert_close(resize_square(table, (1, new**2, 8)), theirs)
