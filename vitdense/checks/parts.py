"""Does a config have all parts of a run, in the form of today's mmdet and mmseg?"""

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from mmengine.config import ConfigDict

from vitdense.config.datasets import metrics
from vitdense.config.tree import places
from vitdense.names import nearest
from vitdense.registry import bare_type

from .rules import Case, rule
from .run import Run

TRIOS = {
    'train': ('train_dataloader', 'train_cfg', 'optim_wrapper'),
    'val': ('val_dataloader', 'val_cfg', 'val_evaluator'),
    'test': ('test_dataloader', 'test_cfg', 'test_evaluator'),
}
"""What mmengine takes together or not at all."""

OLD = {
    'data': 'train_dataloader',
    'runner': 'train_cfg',
    'total_epochs': 'train_cfg',
    'optimizer': 'optim_wrapper',
    'optimizer_config': 'optim_wrapper',
    'lr_config': 'param_scheduler',
    'evaluation': 'val_evaluator',
    'checkpoint_config': 'default_hooks.checkpoint',
    'log_config': 'default_hooks.logger',
    'resume_from': 'resume',
}
"""Keys of mmdet 2 and mmseg 0, and what has taken their place."""

TELLING = ('data', 'runner', 'total_epochs', 'optimizer', 'lr_config', 'evaluation', 'resume_from')
"""Those of ``OLD`` whose successor a runtime of ours does not bring along."""

OLD_ARGUMENTS = {
    'samples_per_gpu': 'batch_size',
    'workers_per_gpu': 'num_workers',
    'img_prefix': "data_prefix=dict(img='...')",
    'flip_ratio': 'prob',
    'ann_dir': 'data_prefix.seg_map_path',
    'img_dir': 'data_prefix.img_path',
}
"""Arguments of loaders, data sets and transforms of that time, and what has taken their place."""

GUIDES = 'https://mmdetection.readthedocs.io/en/latest/migration/migration.html'

NUMBER = re.compile(r'[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?')


@rule(
    'config of mmdet 2.x or mmseg 0.x',
    looks_at=f'keys {", ".join(f"`{key}`" for key in OLD)}, and arguments of that time in the loaders',
    expected='a config of mmdet 3.x or mmseg 1.x, whose keys and arguments have other names',
    remedy='take the config of the same name from the installed package (mmdet::..., mmseg::...), or move the settings '
    f'as {GUIDES} tells',
    needs='parts',
)
def old_form(run: Run) -> Iterator[Case]:
    old = list(_old_keys(run))
    if old:
        moved = ', '.join(f'{key} -> {OLD[key]}' for key in old)
        yield Case(', '.join(old), f'keys of mmdet 2.x or mmseg 0.x ({moved})')
        return
    for split in TRIOS:
        loader = run.cfg.get(f'{split}_dataloader')
        for place, value in places(loader if isinstance(loader, dict) else {}).items():
            name = place.rpartition('.')[2]
            if name in OLD_ARGUMENTS and not isinstance(value, dict | list):
                yield Case(f'{split}_dataloader.{place}', f'an argument of that time, now {OLD_ARGUMENTS[name]}')


def _old_keys(run: Run) -> list[str]:
    """Keys of ``OLD`` that nothing reads any more; as variables of a config of today, their successor is there too."""
    lacking = [key for key in OLD if run.cfg.get(key) is not None and run.cfg.get(OLD[key]) is None]
    return [key for key in OLD if run.cfg.get(key) is not None] if set(lacking) & set(TELLING) else []


@rule(
    'missing part',
    looks_at='`model`, and dataloader, cfg and evaluator (in training optim_wrapper) of each split',
    expected='all parts of the run, and of each split all three parts or none',
    needs='parts',
)
def missing(run: Run) -> Iterator[Case]:
    if _old_keys(run):
        return
    cfg = run.cfg
    wanted = ['model']
    for split, trio in TRIOS.items() if run.names else ():
        if split == run.names[0] or any(cfg.get(part) is not None for part in trio):
            wanted += trio
    lacking = [part for part in wanted if cfg.get(part) is None]
    if lacking:
        yield Case('config', f'no {", ".join(lacking)}', remedy=_advice(run, lacking))
    for part in wanted:
        kinds = dict | list | tuple if part.endswith('evaluator') else dict
        if part not in lacking and not isinstance(cfg[part], kinds):
            yield Case(part, f'{cfg[part]!r}', expected='a dict')
        elif part not in lacking:
            yield from _halves(run, part, cfg[part])


def _advice(run: Run, lacking: list[str]) -> str:
    there = [split for split in ('val', 'test') if all(run.cfg.get(part) is not None for part in TRIOS[split])]
    if there and run.names[:1] == ('test',) and lacking[0] == 'test_dataloader':
        return f'test_dataloader = {there[0]}_dataloader, test_evaluator = {there[0]}_evaluator, test_cfg = dict()'
    name = Path(run.cfg.filename or 'FILE').name
    return f'a part of a config ({name}) belongs into _base_ of one that has the rest' if len(lacking) > 1 else ''


def _halves(run: Run, part: str, node: ConfigDict) -> Iterator[Case]:
    """What the parts themselves lack."""

    def lacks(key: str, what: str, expected: str = 'it, because nothing stands for it') -> Case:
        return Case(key, f'no {what}', expected)

    if part == 'model' and not node.get('type'):
        yield lacks(part, 'type')
    elif part == 'train_cfg' and run.names[0] == 'train':
        if not node.get('type') and node.get('by_epoch') is None:
            yield lacks(part, 'type and no by_epoch', "type='EpochBasedTrainLoop' or 'IterBasedTrainLoop'")
        elif node.get('type') and 'by_epoch' in node:
            yield Case(part, 'both type and by_epoch', expected='one of them')
        elif bare_type(node) in ('', 'EpochBasedTrainLoop', 'IterBasedTrainLoop') and run.length is None:
            yield lacks(part, 'max_epochs' if run.by_epoch else 'max_iters')
    elif part.endswith('_dataloader'):
        if not node.get('dataset'):
            yield lacks(part, 'dataset')
        if isinstance(node.get('sampler'), dict) and not node.sampler.get('type'):
            yield lacks(f'{part}.sampler', 'type')
    elif part == 'optim_wrapper' and run.names[0] == 'train':
        if not node.get('constructor') and not isinstance(node.get('optimizer'), dict):
            yield lacks(part, 'optimizer')
        elif isinstance(node.get('optimizer'), dict) and not node.optimizer.get('type'):
            yield lacks(f'{part}.optimizer', 'type')
    elif part.endswith('_evaluator') and not all(
        metric.get('type') for _, metric in metrics(run.cfg, part.removesuffix('_evaluator'))
    ):
        yield lacks(part, 'type')


@rule(
    'unknown default_scope',
    looks_at='`default_scope`',
    expected='a package that is installed and registers models: mmdet or mmseg',
    needs='parts',
)
def scope(run: Run) -> Iterator[Case]:
    name = run.cfg.get('default_scope')
    if name and (not str(name).isidentifier() or find_spec(str(name)) is None):
        best = nearest(str(name), ('mmdet', 'mmseg'))[0]
        yield Case('default_scope', f'{name!r}', remedy=f'--cfg-options default_scope={best}')


@rule(
    'number as text',
    looks_at='`optim_wrapper`, `param_scheduler` and `train_cfg`; YAML reads 1e-4 as text, and 1.0e-4 as a number',
    expected='a number',
    needs='parts',
)
def texts(run: Run) -> Iterator[Case]:
    for part in ('optim_wrapper', 'param_scheduler', 'train_cfg'):
        node = run.cfg.get(part)
        found = places(node) if isinstance(node, dict | list) else {}
        for place, value in found.items():
            if isinstance(value, str) and NUMBER.fullmatch(value):
                yield Case(f'{part}.{place}', repr(value), remedy=f'{float(value)!r} without quotes')
