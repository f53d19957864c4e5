"""PVT and PVTv2 against implementations that others wrote, with the same weights."""

import copy
import re

import pytest
import timm
import torch
import transformers
from mmdet.models.backbones import PyramidVisionTransformer as MMDetPVT
from mmdet.models.backbones import PyramidVisionTransformerV2 as MMDetPVTv2
from support.backbones import assert_maps_close, image, layout_of, randomize_
from torch import nn
from torch.nn import functional as F

from vitdense.checkpoint.translate import convert
from vitdense.models.backbones import PVT, PVTv2

ODD_SIZES = [(250, 310), (97, 129)]


def load(model: nn.Module, state: dict, family: str) -> nn.Module:
    converted, _ = convert(state, family)
    model.load_state_dict(converted, strict=True)
    return model.eval()


def official_eps_(model: nn.Module, outside_blocks: str) -> nn.Module:
    """Set the eps of the norms whose name matches to 1e-5, as in the release; others are built with 1e-6."""
    for name, module in model.named_modules():
        if re.search(outside_blocks, name):
            assert isinstance(module, nn.LayerNorm)
            module.eps = 1e-5
    return model


def transformers_pvt(arch: str) -> nn.Module:
    row = PVT.ARCHS[arch]
    config = transformers.PvtConfig(
        depths=list(row.depths), hidden_sizes=list(row.embed_dims), mlp_ratios=list(row.mlp_ratios), layer_norm_eps=1e-6
    )
    model = randomize_(transformers.PvtModel(config))
    return official_eps_(model, r'(patch_embeddings\.\d|attention\.self)\.layer_norm$')


@torch.no_grad()
def transformers_maps(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """The four stages of a ``PvtModel`` as the detection code of PVT runs them.

    Without class token, and with its position tables resized here: at other sizes than 224 its own resizing fails.
    """
    maps = []
    for embed, blocks in zip(model.encoder.patch_embeddings, model.encoder.block, strict=True):
        embed, table = copy.copy(embed), embed.position_embeddings
        embed._parameters = dict(embed._parameters)
        if embed.cls_token is not None:
            embed.cls_token, table = None, table[:, 1:]
        side, hw = round(table.shape[1] ** 0.5), [n // embed.projection.stride[0] for n in x.shape[2:]]
        grid = F.interpolate(table.reshape(1, side, side, -1).permute(0, 3, 1, 2), size=hw, mode='bilinear')
        embed.position_embeddings = nn.Parameter(grid.flatten(2).transpose(1, 2))
        tokens, height, width = embed(x)
        for block in blocks:
            tokens = block(hidden_states=tokens, height=height, width=width)[0]
        x = tokens.transpose(1, 2).reshape(x.shape[0], -1, height, width)
        maps.append(x)
    return maps


@pytest.mark.slow
@pytest.mark.parametrize('arch', PVT.ARCHS)
def test_pvt_equals_transformers(arch):
    theirs = transformers_pvt(arch)
    ours = load(PVT(arch), theirs.state_dict(), 'pvt')
    for hw in ODD_SIZES:
        x = image(hw, batch=2)
        with torch.no_grad():
            assert_maps_close(ours(x), transformers_maps(theirs, x))


@pytest.mark.parametrize('arch', ['tiny', 'small'])
def test_pvt_equals_mmdet(arch):
    """mmdet pads remainders, so sizes are multiples of 32; its v1 has norms after the stages (identity here)."""
    row = PVT.ARCHS[arch]
    theirs = randomize_(MMDetPVT(num_layers=list(row.depths)))
    official_eps_(theirs, r'(layers\.\d\.0|attn)\.norm$')
    ours = load(PVT(arch), theirs.state_dict(), 'pvt')
    x = image((192, 256), batch=2)
    with torch.no_grad():
        assert_maps_close(ours(x), theirs(x))


@pytest.mark.slow
@pytest.mark.parametrize('arch', PVTv2.ARCHS)
def test_pvt_v2_equals_timm(arch):
    theirs = randomize_(timm.create_model(f'pvt_v2_{arch}', num_classes=0))
    ours = load(PVTv2(arch), theirs.state_dict(), 'pvt_v2')
    for hw in ODD_SIZES:
        x = image(hw, batch=2)
        with torch.no_grad():
            assert_maps_close(ours(x), theirs.forward_intermediates(x, intermediates_only=True))


@pytest.mark.slow
@pytest.mark.parametrize('arch', ['b2', 'b2_li'])
def test_pvt_v2_equals_transformers(arch):
    row = PVTv2.ARCHS[arch]
    config = transformers.PvtV2Config(
        linear_attention=row.linear,
        depths=list(row.depths),
        hidden_sizes=list(row.embed_dims),
        num_attention_heads=list(row.num_heads),
        mlp_ratios=list(row.mlp_ratios),
        out_features=['stage1', 'stage2', 'stage3', 'stage4'],
    )
    theirs = randomize_(transformers.PvtV2Backbone(config))
    official_eps_(theirs, r'(patch_embedding|attention)\.layer_norm$')
    ours = load(PVTv2(arch), theirs.state_dict(), 'pvt_v2')
    x = image((250, 310), batch=2)
    with torch.no_grad():
        assert_maps_close(ours(x), theirs(x).feature_maps)


def test_pvt_v2_equals_mmdet():
    theirs = randomize_(MMDetPVTv2(embed_dims=32, num_layers=[2, 2, 2, 2]))
    official_eps_(theirs, r'(layers\.\d\.0|attn)\.norm$')
    ours = load(PVTv2('b0'), theirs.state_dict(), 'pvt_v2')
    x = image((250, 310), batch=2)
    with torch.no_grad():
        assert_maps_close(ours(x), theirs(x))


@pytest.mark.parametrize('name', ['pvt_tiny', 'pvt_small', 'pvt_v2_b0', 'pvt_v2_b2', 'pvt_v2_b2_li'])
def test_names_and_shapes_equal_the_release(name):
    """Of the detection backbone; the last position table of ``pvt_*`` is without the entry of the class token."""
    layout = layout_of(name)
    released = {key: tuple(shape) for key, shape, _ in layout['extra_layouts']['detection_backbone']}
    if 'pos_embed4' in released:
        assert released['pos_embed4'] == (1, 50, 512)
        released['pos_embed4'] = (1, 49, 512)
    family, arch = (PVTv2, name[7:]) if name.startswith('pvt_v2') else (PVT, name[4:])
    assert {key: tuple(value.shape) for key, value in family(arch).state_dict().items()} == released


@pytest.mark.parametrize(
    ('family', 'arch', 'millions'),
    [(PVT, 'medium', 44.2), (PVT, 'large', 61.4), (PVTv2, 'b1', 14.0), (PVTv2, 'b3', 45.2), (PVTv2, 'b4', 62.6),
     (PVTv2, 'b5', 82.0)],
)  # fmt: skip
def test_parameter_count_is_the_published_one(family, arch, millions):
    """Published with the classifier: 1000 classes, and in version 1 a norm, a class token and its position."""
    head = 512 * 1000 + 1000 + (4 * 512 if family is PVT else 0)
    assert round((sum(p.numel() for p in family(arch).parameters()) + head) / 1e6, 1) == millions
