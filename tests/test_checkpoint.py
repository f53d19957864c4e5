"""Loading of published weights: every layout, every way in which a file can be wrong."""

import argparse
import json
import os
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from vitdense.checkpoint import pretrained
from vitdense.checkpoint.convert import convert
from vitdense.checkpoint.pretrained import RELEASES, Pretrained
from vitdense.models.backbones import PVT, PVTv2

LAYOUTS = Path(__file__).parent / 'checkpoint_layouts'


def release(name: str) -> dict[str, torch.Tensor]:
    """A state dict with the keys and shapes of an official file, random values."""
    torch.manual_seed(0)
    return {key: torch.randn(shape) for key, shape, _ in json.loads((LAYOUTS / f'{name}.json').read_text())['keys']}


@pytest.fixture
def log(monkeypatch):
    lines = []
    monkeypatch.setattr(pretrained, 'say', lines.append)
    return lines


def save(tmp_path: Path, content) -> str:
    path = tmp_path / 'weights.pth'
    torch.save(content, path)
    return str(path)


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
    assert log == [f'loaded 100 % of backbone parameters from {path}, dropped cls_token, norm.*, head.*']


@pytest.mark.parametrize('arch', ['b0', 'b2', 'b2_li'])
def test_official_pvt_v2_file_loads_unmodified(tmp_path, log, arch):
    state = release(f'pvt_v2_{arch}')
    model = PVTv2(arch, init_cfg=dict(type='vitdense.Pretrained', checkpoint=save(tmp_path, state)))
    model.init_weights()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert len(log) == 1
    assert log[0].startswith('loaded 100 %')
    assert log[0].endswith('dropped head.*')


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
    assert 'resized pos_embed1' in log[0]


def test_another_size_of_the_model_is_an_error(tmp_path):
    path = save(tmp_path, release('pvt_tiny'))
    before = PVT('medium')
    state = {k: v.clone() for k, v in before.state_dict().items()}
    with pytest.raises(ValueError, match=r'does not fit PVT: loaded [\d.]+ % .* at least 90 % must fit'):
        Pretrained(path)(before)
    assert all(torch.equal(v, state[k]) for k, v in before.state_dict().items())
    with pytest.raises(ValueError, match=r'the model has \(32, 3, 7, 7\), the file \(64, 3, 7, 7\)'):
        Pretrained(save(tmp_path, release('pvt_v2_b2')))(PVTv2('b0'))


def test_part_of_a_model_loads_where_it_is_allowed(tmp_path, log):
    state = {k: v for k, v in release('pvt_v2_b0').items() if not k.startswith('block4.')}
    path = save(tmp_path, state)
    with pytest.raises(ValueError, match='missing block4'):
        Pretrained(path)(PVTv2('b0'))
    Pretrained(path, min_loaded=0.3)(PVTv2('b0'))
    assert 'missing block4.*' in log[0]


def test_stages_that_are_not_built_are_dropped(tmp_path, log):
    model = PVTv2('b0', out_indices=(0, 1))
    Pretrained(save(tmp_path, release('pvt_v2_b0')))(model)
    assert log[0].startswith('loaded 100 %')
    assert 'block4.*' in log[0]


def test_a_checkpoint_of_another_model_is_an_error(tmp_path):
    path = save(tmp_path, {'layer1.0.conv1.weight': torch.zeros(3)})
    with pytest.raises(ValueError, match=r'not a checkpoint of pvt \(known layouts: official, transformers, mmdet\)'):
        Pretrained(path)(PVT('tiny'))
    with pytest.raises(ValueError, match=r"key 'decoder\.weight' does not belong to the official layout"):
        convert({**release('pvt_v2_b0'), 'decoder.weight': torch.zeros(1)}, 'pvt_v2')
    with pytest.raises(ValueError, match='no tensors'):
        convert({'epoch': 3}, 'pvt')


class Exploit:
    def __reduce__(self):
        return os.system, ('touch exploited',)


def test_code_in_a_file_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path, {'model': Exploit()})
    with pytest.raises(ValueError, match='cannot be read as a checkpoint of plain tensors'):
        Pretrained(path)(PVT('tiny'))
    assert not (tmp_path / 'exploited').exists()


def test_damaged_and_missing_files(tmp_path):
    path = save(tmp_path, release('pvt_v2_b0'))
    Path(path).write_bytes(Path(path).read_bytes()[:5000])
    with pytest.raises(ValueError, match=r'weights\.pth: cannot be read'):
        Pretrained(path)(PVTv2('b0'))
    with pytest.raises(FileNotFoundError, match="'pvt_smal'; official releases, nearest first: pvt_small"):
        Pretrained('pvt_smal')(PVT('small'))
    with pytest.raises(FileNotFoundError, match=r"'/.*work_dirs/first/best\.pth'; the run 'first' writes it"):
        Pretrained('work_dirs/first/best.pth')(PVT('small'))


def test_other_modules_are_refused(tmp_path):
    with pytest.raises(TypeError, match='backbones of vitdense, not Linear'):
        Pretrained(save(tmp_path, release('pvt_tiny')))(torch.nn.Linear(2, 2))


def test_failed_download_says_what_to_fetch_and_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setitem(RELEASES, 'pvt_tiny', 'http://127.0.0.1:9/pvt_tiny.pth')
    target = tmp_path / 'checkpoints' / 'pvt_tiny.pth'
    with pytest.raises(ConnectionError, match=rf'127\.0\.0\.1:9/pvt_tiny\.pth[\s\S]*{target}[\s\S]*--no-pretrained'):
        Pretrained('pvt_tiny')(PVT('tiny'))
    assert not target.exists()
    torch.save(release('pvt_tiny'), target)
    Pretrained('pvt_tiny')(PVT('tiny'))
