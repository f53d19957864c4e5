"""How configs are built from others, and the batch that each of them is for."""

import argparse
import ast
import re
from functools import cache
from pathlib import Path

import pytest
from mmengine.config import Config
from support import CONFIGS

from vitdense.commands.train import set_options
from vitdense.config.load import config_path

FILES = sorted(CONFIGS.rglob('*.py'))
LEAVES = [path for path in FILES if '_base_' not in path.parts]
BASES = [path for path in FILES if '_base_' in path.parts]
ONE_LEAF = {'shapes_segmentation.py', 'retinanet_pvtv2-b0_fpn64.py'}
"""Bases of one config: a data set, to whose file the number of classes belongs; a model for small images of anybody."""


def name(path: Path) -> str:
    return str(path.relative_to(CONFIGS))


@cache
def references(path: Path) -> tuple[str, ...]:
    """What a config file names as its bases."""
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.Assign) and statement.targets[0].id == '_base_':
            value = ast.literal_eval(statement.value)
            return (value,) if isinstance(value, str) else tuple(value)
    return ()


@cache
def bases(path: Path) -> tuple[Path, ...]:
    return tuple(config_path(r) if '::' in r else (path.parent / r).resolve() for r in references(path))


@cache
def depth(path: Path) -> int:
    return 1 + max(map(depth, bases(path)), default=0)


@cache
def behind(path: Path) -> frozenset[Path]:
    return frozenset(bases(path)).union(*map(behind, bases(path)))


@pytest.mark.parametrize('leaf', LEAVES, ids=name)
def test_a_leaf_is_read_in_four_files_at_most_one_below_the_other(leaf):
    assert depth(leaf) <= 4


@pytest.mark.parametrize('base', BASES, ids=name)
def test_a_base_serves_several_leaves(base):
    served = [leaf for leaf in LEAVES if base in behind(leaf)]
    assert len(served) == 1 if base.name in ONE_LEAF else len(served) > 1


@pytest.mark.parametrize('path', FILES, ids=name)
def test_bases_are_named_in_one_way(path):
    below_base = (
        r'\./[\w.-]+\.py|\.\./\w+/[\w.-]+\.py' if '_base_' in path.parts else r'\./[\w.-]+\.py|\.\./_base_/.+\.py'
    )
    for reference in references(path):
        assert re.fullmatch(rf'{below_base}|(mmdet|mmseg)::.+\.py', reference)
    assert '{{_base_' not in path.read_text()


@pytest.mark.slow
@pytest.mark.parametrize('leaf', LEAVES, ids=name)
def test_a_leaf_says_for_how_many_images_a_step_its_learning_rate_is(leaf):
    """Processes and images each in its name, ``8xb2``; elsewhere those of one process, or of COCO's eight."""
    cfg = Config.fromfile(leaf)
    images = cfg.train_dataloader.batch_size
    base = cfg.auto_scale_lr.base_batch_size
    assert cfg.auto_scale_lr.enable is False
    stated = re.search(r'_(\d+)xb(\d+)-', leaf.name)
    if stated:
        assert images == int(stated[2])
        assert base == images * int(stated[1])
    else:
        processes = {'coco': 64 if 'vitdet-' in leaf.name else 8}.get(leaf.stem.split('_')[-1], 1)
        assert base == images * processes
    args = argparse.Namespace(amp=False, auto_scale_lr=True, seed=None, deterministic=False, log=[], save_every=None)
    set_options(cfg, args)
    assert cfg.auto_scale_lr.enable is True
