"""The rules that need no data find nothing wrong with configs that are right: ours, and those of mmdet and mmseg."""

import re
from importlib import import_module
from pathlib import Path

import pytest
from support import CONFIGS

from vitdense.checks import CHECKS, Run, check, loaders, schedule
from vitdense.config.load import load_config
from vitdense.config.runtime import use_runtime
from vitdense.config.settle import settle
from vitdense.findings import Finding

STEPS = {'mmdet': 118_287 // 16, 'mmseg': 20_210 // 16}
"""Of a pass over COCO or ADE20K in batches of 16, for the rules that count them."""

PARTS = r'_tta|override_category|common/|clrnet/clrnet\.py|4e_base'
"""Files of mmdet beside its configs that are parts of them."""

REFUSED = r'cascade-rpn_r50-caffe_fpn|voc0712-cocofmt|v3det/fcos_swinb'
"""Files of mmdet whose heads, metric or neck refuse an argument when they are built."""

EXPLAINED = {
    'missing part': rf'{PARTS}|solov2-light',  # whose train_cfg has both type and by_epoch
    'unknown argument': REFUSED,
}
"""Faults that files of mmdet and mmseg have."""


NO_FAULTS = ('missing checkpoint', 'missing package', 'learning rate of another batch size')
"""What depends on the machine, or has to be decided by people."""


def alarms(name: str) -> list[Finding]:
    """Faults of a config, and what is remarkable about its loop and schedules; ``NO_FAULTS`` are none."""
    cfg = load_config(name)
    use_runtime(cfg)
    assert settle(cfg) == [], 'nothing has to be guessed'
    splits = ('train', 'val') if cfg.get('train_dataloader') else ('test',)  # some are for tests alone
    run = Run(cfg, splits, steps=dict(train=STEPS.get(cfg.get('default_scope'), 1000)))
    found = [*check(run, 'parts'), *check(Run(cfg, ('test',)), 'parts')]
    if not found:
        found = check(run, 'config') + [
            Finding(kind, case.where, case.found, fatal)
            for stage, kind, fatal, rule in CHECKS
            if stage == 'model' and rule.__module__ in (loaders.__name__, schedule.__name__)
            for case in rule(run)
        ]
    return [one for one in found if one.kind not in NO_FAULTS]


@pytest.mark.slow
@pytest.mark.parametrize('leaf', sorted(CONFIGS.glob('[!_]*/*.py')), ids=lambda leaf: leaf.stem)
def test_ours(leaf):
    assert alarms(str(leaf)) == []


@pytest.mark.sweep
@pytest.mark.parametrize('package', ['mmdet', 'mmseg'])
def test_theirs(package):
    """Of some hundred configs, those that can be read: others need mmpretrain, or a base that is not there."""
    home = Path(str(import_module(package).__file__)).parent / '.mim/configs'
    leaves = [path.relative_to(home).as_posix() for path in home.rglob('*.py') if '_base_' not in path.parts]
    faults, unread = [], []
    for leaf in leaves:
        try:
            found = alarms(f'{package}::{leaf}')
        except ValueError as error:
            unread.append(str(error))
            continue
        faults += [
            f'{leaf}: {one}' for one in found if one.fatal and not re.search(EXPLAINED.get(one.kind, '$^'), leaf)
        ]
    assert faults == []
    assert [reason for reason in unread if not re.search('mmpretrain|does not exist|No such file', reason)] == []
