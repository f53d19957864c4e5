"""ViTDet's backbone against transformers' with the same weights; windows and relative positions by property."""

import re

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from support.backbones import assert_maps_close, image, randomize_, release, save
from torch import nn
from torch.nn import functional as F

from vitdense.checkpoint.pretrained import Pretrained
from vitdense.checkpoint.translate import convert
from vitdense.models.backbones import ViT
from vitdense.models.layers.layout import from_windows, to_windows
from vitdense.models.layers.rel_pos import DecomposedRelPosAttention

VITDET = dict(class_token=False, pos_resize='bicubic', rel_pos='decomposed', window_size=14)


def reference(**kwargs) -> transformers.VitDetBackbone:
    config = transformers.VitDetConfig(
        **{
            'num_hidden_layers': 3,
            'out_features': ['stage1', 'stage2', 'stage3'],
            'use_relative_position_embeddings': True,
            'window_size': 14,
            'window_block_indices': [0, 2],
            **kwargs,
        }
    )
    return randomize_(transformers.VitDetBackbone(config), gain=1.0)


def ours(theirs: nn.Module, arch: str, **kwargs) -> ViT:
    model = ViT(arch, **{'depth': 3, 'out_indices': (0, 1, 2), 'global_blocks': (1,), **VITDET, **kwargs})
    model.load_state_dict(convert(theirs.state_dict(), 'vit')[0], strict=True)
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    ('hw', 'case'),
    [
        ((512, 512), 'the size of the relative tables'),
        ((224, 224), 'the size of the position table, and one window'),
        ((256, 448), 'no multiple of a window'),
        ((96, 688), 'less than a window, and more than the relative tables'),
    ],
)
def test_equals_transformers(hw, case):
    theirs = reference(image_size=512)
    model = ours(theirs, 'base', rel_pos_size=512)
    with torch.no_grad():
        assert_maps_close(model(image(hw)), theirs(image(hw)).feature_maps)


def test_at_full_depth_equals_transformers():
    narrow = dict(hidden_size=192, num_attention_heads=3, num_hidden_layers=12, image_size=320)
    theirs = reference(**narrow, window_block_indices=[0, 1, 3, 4, 6, 7, 9, 10], out_features=['stage6', 'stage12'])
    options = dict(depth=12, out_indices=(5, 11), global_blocks=(2, 5, 8, 11), rel_pos_size=320)
    model = ours(theirs, 'tiny', **options)
    with torch.no_grad():
        assert_maps_close(model(image((272, 400))), theirs(image((272, 400))).feature_maps)


def test_gradients_equal_those_of_transformers():
    theirs = reference(hidden_size=96, num_attention_heads=3, image_size=160, window_size=4)
    options = dict(embed_dims=96, rel_pos_size=160, window_size=4)
    model = ours(theirs, 'tiny', **options).train()
    weight = torch.randn(1, 96, 9, 13, generator=torch.Generator().manual_seed(2))
    for maps in (model(image((144, 208))), theirs(image((144, 208))).feature_maps):
        (maps[-1] * weight).sum().backward()
    gradients = {key: p.grad for key, p in theirs.named_parameters()}
    expected = convert(gradients, 'vit')[0]
    for name, parameter in model.named_parameters():
        scale = expected[name].abs().max()
        assert scale > 0, name
        assert (parameter.grad - expected[name]).abs().max() <= 1e-4 * scale, name


def test_names_and_shapes_equal_the_release():
    """The position table is without the entry of the class token, which the original stores and never reads."""
    with torch.device('meta'):
        model = ViT('base', **VITDET, rel_pos_size=1024, global_blocks=(2, 5, 8, 11))
    prefix = 'backbone.net.'
    state = release('vitdet_vit_b')
    released = {k.removeprefix(prefix): tuple(v.shape) for k, v in state.items() if k.startswith(prefix)}
    assert released['pos_embed'] == (1, 197, 768)
    released['pos_embed'] = (1, 196, 768)
    assert {key: tuple(value.shape) for key, value in model.state_dict().items()} == released


@pytest.mark.slow
def test_detector_of_detectron2_loads(tmp_path, log):
    state = release('vitdet_vit_b')
    path = save(tmp_path, {'model': {**state, 'roi_heads.box_head.fc1.weight': torch.zeros(1)}})
    model = ViT('base', **VITDET, rel_pos_size=512, global_blocks=(2, 5, 8, 11))
    Pretrained(path)(model)
    own = model.state_dict()
    assert torch.equal(own['pos_embed'], state['backbone.net.pos_embed'][:, 1:])
    assert torch.equal(own['blocks.3.attn.rel_pos_w'], state['backbone.net.blocks.3.attn.rel_pos_w'])
    table = state['backbone.net.blocks.5.attn.rel_pos_h']
    torch.testing.assert_close(own['blocks.5.attn.rel_pos_h'], F.interpolate(table.T[None], 63, mode='linear')[0].T)
    assert log[0].startswith('loaded 100 %')
    assert 'missing' not in log[0]


def test_weights_of_mae_leave_relative_positions_at_zero(tmp_path, log):
    state = release('mae_vit_base')
    shallow = {key: value for key, value in state.items() if not re.match(r'blocks\.([3-9]|1\d)\.', key)}
    path = save(tmp_path, {'model': shallow})
    options = dict(depth=3, global_blocks=(2,), rel_pos_size=1024)
    model = ViT('base', **VITDET, **options, init_cfg=dict(type='vitdense.Pretrained', checkpoint=path))
    model.init_weights()
    own = model.state_dict()
    assert torch.equal(own['pos_embed'], state['pos_embed'][:, 1:])
    for key, value in own.items():
        if 'rel_pos' in key:
            assert not value.any()
        elif key != 'pos_embed':
            assert torch.equal(value, state[key])
    assert 'fresh 6 (blocks.*.rel_pos_h, blocks.*.rel_pos_w)' in log[0]


@settings(max_examples=50, deadline=None)
@given(height=st.integers(1, 20), width=st.integers(1, 20), window=st.integers(1, 8), batch=st.integers(1, 2))
def test_windows_hold_the_map_and_the_padding(height, width, window, batch):
    tokens = torch.arange(1, batch * height * width + 1).reshape(batch, -1, 1) * torch.tensor([1.0, -1.0])
    windows = to_windows(tokens, (height, width), window, torch.tensor([0.5, 0.25]))
    rows, columns = -(-height // window), -(-width // window)
    assert windows.shape == (batch * rows * columns, window**2, 2)
    assert torch.equal(from_windows(windows, (height, width), window), tokens)
    padded = rows * columns * window**2 - height * width
    assert (windows == torch.tensor([0.5, 0.25])).all(-1).sum() == batch * padded
    assert torch.equal(windows[0, 0], tokens[0, 0])


@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 6), width=st.integers(1, 6))
def test_relative_positions_add_the_products_of_query_and_offset(height, width):
    torch.manual_seed(0)
    attn = DecomposedRelPosAttention(8, num_heads=2, grid=(height, width))
    nn.init.normal_(attn.rel_pos_h)
    nn.init.normal_(attn.rel_pos_w)
    qkv = torch.randn(1, height * width, 24)
    q, k, v = (x.reshape(-1, 2, 4).double() for x in qkv[0].chunk(3, dim=1))
    expected = torch.zeros_like(q)
    for head in range(2):
        for i in range(height * width):
            logits = []
            for j in range(height * width):
                down, right = i // width - j // width, i % width - j % width
                offset = attn.rel_pos_h[down + height - 1] + attn.rel_pos_w[right + width - 1]
                logits.append(q[i, head] @ k[j, head] / 2 + q[i, head] @ offset.double())
            expected[i, head] = torch.stack(logits).softmax(0) @ v[:, head]
    with torch.no_grad():
        torch.testing.assert_close(attn.attend(qkv, (height, width))[0], expected.flatten(1).float())


def test_padding_by_whole_windows_changes_nothing_without_global_blocks():
    """Without a position table, which is stretched over the image."""
    torch.manual_seed(0)
    model = ViT('tiny', depth=2, **{**VITDET, 'window_size': 4}, pos_embed=None).eval()
    x = image((128, 192))
    with torch.no_grad():
        (alone,) = model(x)
        (padded,) = model(F.pad(x, (0, 70, 0, 100)))
    torch.testing.assert_close(padded[:, :, :8, :12], alone)
