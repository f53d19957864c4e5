"""Weights that mmengine loads without our runner: into models of ours, of others, and into parts of them."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer, init_detector
from mmdet.models.backbones import ResNet
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import CheckpointLoader, load_checkpoint
from mmseg.apis import MMSegInferencer, init_model
from safetensors.torch import save_file
from support import ROOT
from support.backbones import release, save
from support.configs import model_of

from vitdense.checkpoint.into_model import adapt
from vitdense.config.load import load_config
from vitdense.models.backbones import PVT, PVTv2

YOLOS = 'yolos/yolos-ti_8xb2-300e_coco.py'
SEM_FPN = 'pvt_v2/sem-fpn_pvtv2-b0_8xb4-40k_ade20k-512x512.py'


@pytest.fixture(autouse=True)
def scope() -> None:
    init_default_scope('mmdet')


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """Lines that are logged while files are loaded."""
    lines: list[str] = []
    monkeypatch.setattr('vitdense.checkpoint.anywhere.print_log', lambda line, *args: lines.append(line))
    return lines


def resnet(**kwargs) -> ResNet:
    return ResNet(18, base_channels=8, stem_channels=8, **kwargs)


def assert_loaded(model: torch.nn.Module, state: dict) -> None:
    own = model.state_dict()
    assert set(own) <= set(state)
    for key, value in own.items():
        assert torch.equal(value, state[key]), key


def values_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {
        key: torch.rand_like(value) if value.is_floating_point() else value for key, value in model.state_dict().items()
    }


# --- parts, by init_cfg ---


@pytest.mark.parametrize('wrapper', ['model', 'state_dict', 'module', None])
def test_mmengines_pretrained_unwraps_weights_of_mmdets_backbones(tmp_path, wrapper):
    state = values_of(resnet())
    path = save(tmp_path, {wrapper: state, 'epoch': 3} if wrapper else state)
    model = resnet(init_cfg=dict(type='Pretrained', checkpoint=path))
    model.init_weights()
    assert_loaded(model, state)


@pytest.mark.parametrize('wrapper', ['model', 'state_dict'])
def test_a_prefix_finds_its_part_in_any_wrapper(tmp_path, wrapper):
    state = values_of(resnet())
    path = save(tmp_path, {wrapper: {f'backbone.{key}': value for key, value in state.items()}})
    model = resnet(init_cfg=dict(type='Pretrained', checkpoint=path, prefix='backbone.'))
    model.init_weights()
    assert_loaded(model, state)


def test_mmengines_pretrained_converts_for_our_backbones_as_ours_does(tmp_path):
    path = save(tmp_path, {'model': release('pvt_v2_b0')})
    models = [PVTv2('b0', init_cfg=dict(type=kind, checkpoint=path)) for kind in ('Pretrained', 'vitdense.Pretrained')]
    for model in models:
        model.init_weights()
    assert_loaded(models[0], models[1].state_dict())
    assert not torch.equal(models[0].state_dict()['patch_embed1.proj.weight'], PVTv2('b0').patch_embed1.proj.weight)


def test_weights_of_another_backbone_are_refused_for_ours(tmp_path):
    path = save(tmp_path, {'model': values_of(resnet())})
    with pytest.raises(ValueError, match=r'weights\.pth: not a checkpoint of pvt'):
        PVT('tiny', init_cfg=dict(type='Pretrained', checkpoint=path)).init_weights()


def test_what_fits_nowhere_is_an_error_with_the_file_and_both_sides(tmp_path):
    path = save(tmp_path, {'model': release('detr_r50')})
    with pytest.raises(ValueError, match=r'nothing of .*weights\.pth fits ResNet') as error:
        resnet(init_cfg=dict(type='Pretrained', checkpoint=path)).init_weights()
    assert 'missing: conv1.weight' in str(error.value)
    assert 'unexpected: ' in str(error.value)


def test_a_whole_model_without_a_prefix_is_told_which(tmp_path):
    path = save(tmp_path, {f'backbone.{key}': value for key, value in values_of(resnet()).items()})
    with pytest.raises(ValueError, match=r"fits ResNet; prefix='backbone\.' takes the backbone"):
        resnet(init_cfg=dict(type='Pretrained', checkpoint=path)).init_weights()


@pytest.mark.parametrize('wrapper', ['model', 'state_dict', None])
@pytest.mark.parametrize('prefix', ['bone', 'bone.', 'backbone.layer9'])
@pytest.mark.parametrize('target', [resnet, lambda **kwargs: PVTv2('b0', **kwargs)], ids=['theirs', 'ours'])
def test_a_prefix_that_the_file_does_not_have(tmp_path, wrapper, prefix, target):
    state = {f'backbone.{key}': value for key, value in values_of(resnet()).items()} | {'neck.a': torch.ones(1)}
    path = save(tmp_path, {wrapper: state} if wrapper else state)
    said = rf'{re.escape(str(path))} has nothing under prefix={prefix!r}, only under backbone, neck'
    with pytest.raises(ValueError, match=said):
        target(init_cfg=dict(type='Pretrained', checkpoint=path, prefix=prefix)).init_weights()


def test_what_fits_in_part_is_said(tmp_path, said):
    """The console of a run does not show the warning of mmengine."""
    state = {key: value for key, value in values_of(resnet()).items() if not key.startswith('layer4')}
    resnet(init_cfg=dict(type='Pretrained', checkpoint=save(tmp_path, state))).init_weights()
    (line,) = said
    assert line.startswith('loaded 25')
    assert f'of the parameters of ResNet from {tmp_path / "weights.pth"}, fresh' in line
    assert 'layer4.*' in line


def test_a_file_that_fits_in_all_is_no_warning(tmp_path, said):
    state = values_of(resnet()) | {'fc.weight': torch.rand(10, 64)}
    resnet(init_cfg=dict(type='Pretrained', checkpoint=save(tmp_path, state))).init_weights()
    assert said == []


def test_modules_without_parameters_load_nothing():
    load_checkpoint.__globals__['load_state_dict'](torch.nn.ReLU(), {})


# --- files ---


def test_formats_that_mmengine_does_not_read(tmp_path):
    state = values_of(resnet())
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / 'weights.safetensors')
    np.savez(tmp_path / 'weights.npz', **{key: value.numpy() for key, value in state.items()})
    for name in ('weights.safetensors', 'weights.npz'):
        model = resnet()
        load_checkpoint(model, str(tmp_path / name))
        assert_loaded(model, state)


class Mine:
    pass


def test_code_in_a_file_is_not_run(tmp_path):
    path = save(tmp_path, {'model': values_of(resnet()), 'args': Mine()})
    with pytest.raises(ValueError, match=r'it needs .*Mine, and to load them could run any code'):
        load_checkpoint(resnet(), path)


def test_a_missing_file_has_its_neighbours_named(tmp_path):
    save(tmp_path, values_of(resnet()))
    with pytest.raises(FileNotFoundError, match=r'no checkpoint file .*wieghts\.pth.*weights\.pth'):
        load_checkpoint(resnet(), str(tmp_path / 'wieghts.pth'))


def test_other_content_than_weights_is_read_as_it_is(tmp_path):
    """As mmseg's VPD keeps its embeddings of classes."""
    path = save(tmp_path, torch.arange(3))
    assert CheckpointLoader.load_checkpoint(path, 'cpu').tolist() == [0, 1, 2]


# --- whole models ---


def expected_of(leaf: str, content: dict) -> dict:
    return adapt(content, MODELS.build(model_of(leaf)))[0]['state_dict']


@pytest.mark.slow
def test_an_official_detector_in_mmdets_apis(tmp_path):
    content = {'model': release('yolos_ti'), 'epoch': 1}
    path, leaf = save(tmp_path, content), str(ROOT / 'configs' / YOLOS)
    expected = expected_of(YOLOS, content)
    assert_loaded(init_detector(leaf, path, device='cpu', palette='random'), expected)
    assert_loaded(DetInferencer(leaf, path, device='cpu').model, expected)


@pytest.mark.slow
@pytest.mark.parametrize('content', [{'model': {'head.weight': torch.rand(3, 3)}}, values_of(resnet())])
def test_another_file_in_mmdets_apis_is_an_error(tmp_path, content):
    path, leaf = save(tmp_path, content), str(ROOT / 'configs' / YOLOS)
    for load in (lambda: init_detector(leaf, path, device='cpu'), lambda: DetInferencer(leaf, path, device='cpu')):
        with pytest.raises(ValueError, match=r'weights: .*weights\.pth has 0 % of the parameters'):
            load()


@pytest.mark.slow
def test_an_official_detector_is_no_random_one_of_mmdet(tmp_path):
    cfg = load_config('mmdet::detr/detr_r50_8xb2-150e_coco.py')
    cfg.model.backbone.init_cfg = None
    with pytest.raises(ValueError, match=r'nothing of .*weights\.pth fits DETR'):
        init_detector(cfg, save(tmp_path, {'model': release('detr_r50')}), device='cpu')


@pytest.mark.slow
def test_official_segmentors_and_backbones_in_mmsegs_apis(tmp_path):
    leaf = str(ROOT / 'configs' / SEM_FPN)
    init_default_scope('mmseg')
    model = MODELS.build(model_of(SEM_FPN))
    state = values_of(model)
    path = save(tmp_path, {'model': state})
    assert_loaded(init_model(leaf, path, device='cpu'), state)
    assert_loaded(MMSegInferencer(leaf, path, device='cpu').model, state)
    path = save(tmp_path, {'model': release('pvt_v2_b0')})
    for load in (init_model, MMSegInferencer):
        with pytest.raises(ValueError, match=r'It looks like the weights of a backbone \(pvt_v2\)'):
            load(leaf, path, device='cpu')


@pytest.mark.slow
def test_a_head_that_starts_afresh_is_said(tmp_path, said):
    """A model may be loaded to go on, so that this is no error."""
    cfg = Config.fromfile(ROOT / 'configs' / YOLOS)
    cfg.model.bbox_head.num_classes = 3
    init_detector(cfg, save(tmp_path, {'model': release('yolos_ti')}), device='cpu', palette='random')
    assert 'class_embed.layers.2 starts afresh: 92 logits are in the file, 4 in the model' in said[-1]


@pytest.mark.slow
def test_it_holds_for_an_mmengine_that_was_imported_before(tmp_path):
    path = save(tmp_path, {'model': {'conv.weight': torch.rand(1)}})
    code = f"""
from mmengine.runner import load_checkpoint
import torch, vitdense
vitdense.compat.install()
try:
    load_checkpoint(torch.nn.Linear(2, 2), {path!r})
except ValueError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=Path(ROOT.anchor))
    assert f'nothing of {path} fits Linear' in result.stdout, result.stderr
