"""Files of weights that a config names."""

import pytest
from mmengine.config import Config

from vitdense.checks import Run, check


def found(names=('train', 'val'), **cfg) -> list[str]:
    cfg = dict(model=dict(type='X')) | cfg
    return [
        str(finding) for finding in check(Run(Config(cfg), names), 'config') if finding.kind == 'missing checkpoint'
    ]


@pytest.mark.parametrize(
    ('cfg', 'where'),
    [
        (dict(load_from='gone.pth'), 'load_from'),
        (dict(model=dict(init_cfg=dict(checkpoint='gone.pth'))), 'model.init_cfg.checkpoint'),
        (dict(model=dict(neck=[dict(init_cfg=[dict(checkpoint='gone.pth')])])), 'model.neck.0.init_cfg.0.checkpoint'),
        (dict(model=dict(pretrained='gone.pth')), 'model.pretrained'),
        (dict(model=dict(teacher_ckpt='gone.pth')), 'model.teacher_ckpt'),
    ],
)
def test_a_file_that_is_not_there(cfg, where, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'gone2.pth').touch()
    [text] = found(**cfg)
    assert text.startswith(f"missing checkpoint: {where}: no checkpoint file 'gone.pth'")
    assert f'checkpoints in {tmp_path}: gone2.pth' in text
    (tmp_path / 'gone.pth').touch()
    assert found(**cfg) == []


@pytest.mark.parametrize(
    'name',
    ['https://host/x.pth', 'torchvision://resnet50', 'open-mmlab://detectron/resnet50_caffe', 'pvt_small', 's3://b/x.pth'],
)  # fmt: skip
def test_names_and_urls_are_not_looked_at(name):
    assert found(load_from=name, model=dict(backbone=dict(init_cfg=dict(checkpoint=name)))) == []


def test_no_file_and_a_test():
    model = dict(backbone=dict(pretrained=True, init_cfg=dict(type='Pretrained', checkpoint='none/gone.pth')))
    assert found(('test',), model=model) == []
    [text] = found(model=model)
    assert 'none/gone.pth' in text
    assert len(found(('test',), load_from='gone.pth')) == 1
