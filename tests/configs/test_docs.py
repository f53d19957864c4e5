"""Configs that the README and the docs print: they load, find the data that they describe, and fit a model to them."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from support import CONFIGS, ROOT
from support.scan import coco_content, write_picture

from vitdense.commands import parser_of
from vitdense.commands.prepare import describe_run, scan
from vitdense.config.channels import misfits
from vitdense.config.class_counts import miscounts
from vitdense.config.missing_files import check_files
from vitdense.config.runtime import read_config


def printed(page: str, words: str) -> str:
    """The one block of Python on a page that has these ``words``."""
    blocks = re.findall(r'```python\n(.*?)```', (ROOT / page).read_text(), re.DOTALL)
    (block,) = [block for block in blocks if words in block]
    return block


def cells(root: Path) -> None:
    for split, images in (('train', 4), ('val', 2)):
        content = coco_content(images)
        for category, name in zip(content['categories'], ('RBC', 'WBC', 'Platelets'), strict=True):
            category['name'] = name
        for number, image in enumerate(content['images']):
            write_picture(root / split / image['file_name'], seed=number + 10 * images)
        (root / 'annotations').mkdir(exist_ok=True)
        (root / f'annotations/{split}.json').write_text(json.dumps(content))


def streets(root: Path) -> None:
    for number, split in enumerate(('train', 'val')):
        write_picture(root / f'images/{split}/a.jpg', seed=number)
        (root / f'maps/{split}').mkdir(parents=True)
        labels = np.random.default_rng(number).choice([0, 1, 2, 255], (60, 80)).astype(np.uint8)
        assert cv2.imwrite(str(root / f'maps/{split}/a.png'), labels)


@pytest.mark.parametrize(
    ('page', 'words', 'folder', 'write', 'images'),
    [('README.md', 'RBC', 'data/cells', cells, [4, 2]), ('docs/data.md', 'streets', 'data/streets', streets, [1, 1])],
)
def test_own_classes(tmp_path, monkeypatch, page, words, folder, write, images):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))
    (tmp_path / 'configs').symlink_to(CONFIGS)
    (tmp_path / 'mine.py').write_text(printed(page, words))
    (tmp_path / folder).mkdir(parents=True)
    write(tmp_path / folder)
    args = parser_of('check').parse_args(['mine.py', '--check', 'full'])
    cfg = read_config(args)
    check_files(cfg, args.splits)
    run = describe_run(cfg, args.splits)
    scan(run, args)
    reports = run.reports
    assert [report.images for report in reports] == images
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        model = MODELS.build({**cfg.model, 'data_preprocessor': None})
    for report in reports:
        assert len(report.classes) == 3
        assert all(found > 0 for found, _ in report.per_class.values()), report.per_class
        assert miscounts(model, len(report.classes), cfg.model) == ([], [])


def test_another_backbone_in_a_config_of_mmdet(tmp_path):
    (tmp_path / 'mine.py').write_text(printed('README.md', 'vitdense.PVTv2'))
    cfg = read_config(parser_of('check').parse_args([str(tmp_path / 'mine.py')]))
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        model = MODELS.build({**cfg.model, 'data_preprocessor': None})
    assert list(misfits(cfg.model, model.backbone.out_channels)) == []
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=1e-4, weight_decay=1e-4)
