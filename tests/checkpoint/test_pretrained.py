"""Loading of published weights into a backbone: what the report says, and every way in which a file can be wrong."""

import argparse

import pytest
import torch
from support.backbones import release, save
from torch import nn
from torch.nn import functional as F

from vitdense.checkpoint.layouts import RELEASES
from vitdense.checkpoint.pretrained import Pretrained
from vitdense.checkpoint.translate import convert
from vitdense.models.backbones import PVT, PVTv2, Swin, ViT


@pytest.mark.parametrize('wrap', [lambda s: s, lambda s: {'model': s, 'args': argparse.Namespace(lr=1)}])
def test_official_pvt_file_loads_unmodified(tmp_path, log, wrap):
    state = release('pvt_tiny')
    path = save(tmp_path, wrap(state))
    model = PVT('tiny', init_cfg=dict(type='vitdense.Pretrained', checkpoint=path))
    model.init_weights()
    own = model.state_dict()
    assert torch.equal(own['pos_embed4'], state['pos_embed4'][:, 1:])
    assert torch.equal(own['block3.1.attn.kv.weight'], state['block3.1.attn.kv.weight'])
    assert all(torch.equal(value, state[key]) for key, value in own.items() if key != 'pos_embed4')
    assert log == [
        f'loaded 100 % of backbone parameters from {path} (PVT release), left out 5 (cls_token, norm.*, head.*)'
    ]


@pytest.mark.parametrize('arch', ['b0', 'b2', 'b2_li'])
def test_official_pvt_v2_file_loads_unmodified(tmp_path, log, arch):
    state = release(f'pvt_v2_{arch}')
    path = save(tmp_path, state)
    model = PVTv2(arch, init_cfg=dict(type='vitdense.Pretrained', checkpoint=path))
    model.init_weights()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert log == [f'loaded 100 % of backbone parameters from {path} (PVTv2 release), left out 2 (head.*)']


def test_backbone_of_a_trained_detector_loads(tmp_path, log):
    own = PVTv2('b0').state_dict()
    detector = {f'backbone.{k}': torch.full_like(v, 0.5) for k, v in own.items()}
    detector['bbox_head.weight'] = torch.ones(3)
    model = PVTv2('b0')
    Pretrained(save(tmp_path, {'meta': {}, 'state_dict': detector}))(model)
    assert all((v == 0.5).all() for v in model.state_dict().values())


def test_data_parallel_prefix_is_removed():
    state = {f'module.{k}': v for k, v in PVTv2('b0').state_dict().items()}
    assert set(convert(state, 'pvt_v2')[0]) == set(PVTv2('b0').state_dict())


def test_position_tables_of_another_image_size_are_resized(tmp_path, log):
    state = release('pvt_tiny')
    state['pos_embed1'] = torch.randn(1, 96 * 96, 64)
    model = PVT('tiny')
    Pretrained(save(tmp_path, state))(model)
    grid = state['pos_embed1'].reshape(1, 96, 96, 64).permute(0, 3, 1, 2)
    expected = F.interpolate(grid, size=(56, 56), mode='bilinear').permute(0, 2, 3, 1).reshape(1, 56 * 56, 64)
    torch.testing.assert_close(model.pos_embed1.data, expected)
    assert 'resized 1 (pos_embed1)' in log[0]


def test_another_size_of_the_model_is_an_error(tmp_path):
    path = save(tmp_path, release('pvt_tiny'))
    model = PVT('medium')
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(
        ValueError,
        match=r'^init_cfg: .*\(PVT release\) has [\d.]+ % of the backbone .*\n  missing: block1',
    ):
        Pretrained(path)(model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    with pytest.raises(ValueError, match=r'the model has \(32, 3, 7, 7\), the file \(64, 3, 7, 7\)'):
        Pretrained(save(tmp_path, release('pvt_v2_b2')))(PVTv2('b0'))


def test_a_deeper_model_of_the_same_widths_is_an_error(tmp_path):
    """All of a Swin-T but the norms of its maps is in a Swin-S, and nine blocks of a ViT are in twelve."""
    with pytest.raises(ValueError, match=r'99\.9 % .*\n  unexpected: layers\.2\.blocks\.6\.norm1\.weight'):
        Pretrained(save(tmp_path, release('swin_small')))(Swin('tiny'))
    with pytest.raises(ValueError, match=r'100 % .* same layers\.\n  unexpected: blocks\.9\.norm1\.weight'):
        Pretrained(save(tmp_path, release('deit_tiny_patch16_224')))(ViT('tiny', depth=9))


def test_part_of_a_model_loads_where_it_is_allowed(tmp_path, log):
    state = {k: v for k, v in release('pvt_v2_b0').items() if not k.startswith('block4.')}
    state['block1.0.norm1.scale'] = torch.ones(3)
    path = save(tmp_path, state)
    with pytest.raises(ValueError, match=r'missing: block4\.0\..*\n  unexpected: block1\.0\.norm1\.scale\n'):
        Pretrained(path)(PVTv2('b0'))
    model = PVTv2('b0')
    Pretrained(path, allow_partial=True)(model)
    assert torch.equal(model.block3[0].attn.q.weight.data, state['block3.0.attn.q.weight'])
    assert log[0].endswith('left out 2 (head.*), missing 32 (block4.*), unexpected 1 (block1.*.scale)')
    nothing = save(tmp_path, {'block1.0.attn.q.weight': torch.zeros(3)})
    with pytest.raises(ValueError, match='0 % of the backbone parameters of PVTv2'):
        Pretrained(nothing, allow_partial=True)(PVTv2('b0'))


@pytest.mark.parametrize(
    ('model', 'name', 'parts'),
    [
        (lambda: PVTv2('b0', out_indices=(0, 1)), 'pvt_v2_b0', ['block4', 'norm3']),
        (lambda: Swin('tiny', out_indices=(0, 1)), 'swin_tiny', ['layers']),
        (lambda: ViT('tiny', out_indices=(2, 5)), 'deit_tiny_patch16_224', ['blocks', 'norm', 'head']),
    ],
)
def test_stages_that_are_not_built_are_left_out(tmp_path, log, model, name, parts):
    model, state = model(), release(name)
    Pretrained(save(tmp_path, state))(model)
    for key, value in model.state_dict().items():
        assert key not in state or torch.equal(value, state[key])
    line = log[0].split(', left out ')[1]
    assert all(f'{part}.*' in line for part in parts)
    assert 'missing' not in line
    assert 'unexpected' not in line


def test_a_checkpoint_of_another_model_is_an_error(tmp_path):
    path = save(tmp_path, {'layer1.0.conv1.weight': torch.zeros(3)})
    with pytest.raises(ValueError, match=r'not a checkpoint of pvt \(known layouts: PVT release, tr.*, mmdet\)'):
        Pretrained(path)(PVT('tiny'))
    with pytest.raises(ValueError, match=r'not a checkpoint of swin \(.*\); it is one of pvt_v2$'):
        Pretrained(save(tmp_path, release('pvt_v2_b0')))(Swin('tiny'))
    with pytest.raises(ValueError, match=r"key 'decoder\.weight' does not belong to the PVTv2 release layout"):
        convert({**release('pvt_v2_b0'), 'decoder.weight': torch.zeros(1)}, 'pvt_v2')
    with pytest.raises(ValueError, match='no tensors'):
        convert({'epoch': 3}, 'pvt')


def test_other_modules_are_refused(tmp_path):
    with pytest.raises(TypeError, match='backbones of vitdense, not Linear'):
        Pretrained(save(tmp_path, release('pvt_tiny')))(nn.Linear(2, 2))


def test_file_of_a_download_that_failed_is_used_when_it_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setitem(RELEASES, 'pvt_tiny', 'http://127.0.0.1:9/pvt_tiny.pth')
    target = tmp_path / 'checkpoints' / 'pvt_tiny.pth'
    with pytest.raises(ConnectionError, match=rf'127\.0\.0\.1:9/pvt_tiny\.pth[\s\S]*{target}[\s\S]*--no-pretrained'):
        Pretrained('pvt_tiny')(PVT('tiny'))
    assert not target.exists()
    torch.save(release('pvt_tiny'), target)
    Pretrained('pvt_tiny')(PVT('tiny'))
