"""Arguments of backbones: those of the same networks elsewhere, misspelled ones, and values of another kind."""

import inspect

import mmdet.models.backbones as mmdet_backbones
import mmseg.models.backbones as mmseg_backbones
import pytest

from vitdense.models.backbones import PVT, YOLOS, HybridViT, PVTv2, Swin, SwinV2, ViT, ViTAdapter

ARCH = {PVTv2: 'b0', HybridViT: 'base'}
WITHOUT_A_COUNTERPART = {'self', 'kwargs', 'num_classes', 'global_pool', 'head_init_scale'}
"""Arguments of classifiers."""


def refusal(backbone: type, **arguments: object) -> str:
    with pytest.raises((TypeError, ValueError)) as caught:
        backbone(ARCH.get(backbone, 'tiny'), **arguments)
    return str(caught.value)


def ours(backbone: type) -> set[str]:
    columns = vars(next(iter(backbone.ARCHS.values())))
    owners = [base for base in backbone.__mro__ if base.__module__.startswith('vitdense') and '__init__' in vars(base)]
    return set(columns) | {name for owner in owners for name in inspect.signature(owner.__init__).parameters}


@pytest.mark.parametrize(
    ('backbone', 'theirs'),
    [
        (PVT, mmdet_backbones.PyramidVisionTransformer),
        (PVTv2, mmdet_backbones.PyramidVisionTransformerV2),
        (Swin, mmdet_backbones.SwinTransformer),
        (Swin, mmseg_backbones.SwinTransformer),
        (ViT, mmseg_backbones.VisionTransformer),
        (ViT, mmseg_backbones.BEiT),
        (ViT, mmseg_backbones.MAE),
    ],
)
def test_every_argument_of_the_same_network_is_taken_or_explained(backbone, theirs):
    names = {name for base in theirs.__mro__[:2] for name in inspect.signature(base.__init__).parameters}
    for name in names - WITHOUT_A_COUNTERPART - {'args'} - ours(backbone):
        message = refusal(backbone, **{name: 1})
        assert f'unknown argument {name!r}: ' in message
        assert 'did you mean' not in message, message


def test_what_is_called_otherwise_here_exists():
    for backbone in (PVT, PVTv2, Swin, SwinV2, ViT, ViTAdapter, HybridViT):
        for name, hint in backbone.ELSEWHERE.items():
            if hint.startswith("it is '") and name not in ours(backbone):
                stands_for = hint.split("'")[1]
                assert stands_for in ours(backbone) | {'mlp_ratios'}, (backbone, name)
                assert hint in refusal(backbone, **{name: 1})


@pytest.mark.parametrize(
    ('backbone', 'name', 'nearest'),
    [
        (PVT, 'frozen_stage', 'frozen_stages'),
        (PVT, 'out_indice', 'out_indices'),
        (Swin, 'with_pc', 'with_cp'),
        (Swin, 'attn_drop_rat', 'attn_drop_rate'),
        (SwinV2, 'window_sizes', 'window_size'),
        (ViT, 'final_norms', 'final_norm'),
        (ViT, 'in_channel', 'in_channels'),
        (ViTAdapter, 'norm_cgf', 'norm_cfg'),
        (YOLOS, 'init_config', 'init_cfg'),
        (HybridViT, 'layer', 'layers'),
    ],
)
def test_the_nearest_of_all_arguments_is_named(backbone, name, nearest):
    assert f'{backbone.__name__}: unknown argument {name!r}: did you mean {nearest!r}?' in refusal(
        backbone, **{name: 1}
    )


@pytest.mark.parametrize(
    ('backbone', 'name', 'value', 'wanted'),
    [
        (PVT, 'embed_dims', 64, 'a sequence, such as (64, 128, 320, 512)'),
        (PVTv2, 'depths', 2, 'a sequence, such as (2, 2, 2, 2)'),
        (Swin, 'embed_dims', (96, 192, 384, 768), 'a whole number, such as 96'),
        (Swin, 'drop_path_rate', '0.1', 'a number, such as 0.2'),
        (ViT, 'img_size', '224', 'a whole number or a sequence, such as 224'),
        (ViT, 'global_blocks', 2, 'a sequence, such as ()'),
        (ViT, 'layer_scale', 'no', 'a number or None'),
        (ViT, 'pos_embed', 1, "a name or None, such as 'all'"),
    ],
)
def test_a_value_of_another_kind_is_told_what_is_wanted(backbone, name, value, wanted):
    assert refusal(backbone, **{name: value}) == f'{backbone.__name__}: {name} must be {wanted}, got {value!r}'


@pytest.mark.parametrize(
    ('backbone', 'value', 'wanted'),
    [
        (ViT, -1, 'ViT: out_indices must be increasing stages out of 0 to 11, got -1; the last alone is (11,)'),
        (PVT, 3, 'PVT: out_indices must be increasing stages out of 0 to 3, got 3; the last alone is (3,)'),
    ],
)
def test_one_stage_is_a_sequence_too(backbone, value, wanted):
    assert refusal(backbone, out_indices=value) == wanted


def test_lists_and_whole_numbers_are_what_configs_write():
    assert PVTv2('b0', depths=[1, 1, 1, 1], mlp_ratios=[2, 2, 2, 2]).depths == (1, 1, 1, 1)
    assert ViT('tiny', depth=2, mlp_ratio=2, qkv_bias=0, drop_path_rate=0).arch.mlp_ratio == 2
