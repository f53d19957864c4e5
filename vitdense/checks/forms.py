"""Are data sets, pipelines and hooks of the form that mmengine builds them from?"""

from collections.abc import Callable, Iterator
from typing import Any

from mmengine.config import Config, ConfigDict

from vitdense.config.datasets import leaf_datasets
from vitdense.config.tree import look_up, places
from vitdense.registry import bare_type

from .rules import Case, rule
from .run import Run

KNOWN = ('mmcv', 'mmdet', 'mmengine', 'mmseg', 'vitdense')
"""Packages whose data sets and transforms are known."""

Form = tuple[Callable[[Any], bool], str, str]

QUOTED = 'a comma makes a list of what --cfg-options gives: \'KEY="a, b"\' is a text'

TEXT: Form = (lambda value: isinstance(value, str), 'a text', '')
DICT: Form = (lambda value: isinstance(value, dict | Config), 'a dict', '')
FORMS: dict[str, Form] = {
    'data_root': (*TEXT[:2], QUOTED),
    'ann_file': (*TEXT[:2], "dict(type='ConcatDataset', datasets=[...]) has one data set for each file"),
    'data_prefix': (*DICT[:2], "data_prefix=dict(img='...'), of semantic maps dict(img_path=..., seg_map_path=...)"),
    'metainfo': (*DICT[:2], 'metainfo=dict(classes=(...))'),
}
"""Arguments of data sets of these packages: what they have to be, in words, and what to write."""


@rule(
    'part of another form',
    looks_at='data sets, wrappers such as ConcatDataset, pipelines and hooks',
    expected='what mmengine builds',
    needs='parts',
)
def forms(run: Run) -> Iterator[Case]:
    for split in run.names:
        key = f'{split}_dataloader'
        loader = run.cfg.get(key)
        if isinstance(loader, dict) and loader.get('dataset'):
            yield from _dataset(run, f'{key}.dataset', loader['dataset'])
    hooks = run.cfg.get('custom_hooks') or []
    if not isinstance(hooks, list | tuple):
        yield Case('custom_hooks', f'a {type(hooks).__name__}', 'a list of dicts')
    elif strange := [hook for hook in hooks if isinstance(hook, str | list | tuple)]:
        yield Case('custom_hooks', f'{strange[0]!r}', 'dicts with a type in the list')


def _dataset(run: Run, key: str, node: Any) -> Iterator[Case]:
    if not isinstance(node, dict):
        remedy = f"{key}=dict(type='ConcatDataset', datasets=[...])" if isinstance(node, list | tuple) else ''
        yield Case(key, f'a {type(node).__name__}', 'one dict with a type', remedy)
        return
    yield from _pipeline(f'{key}.pipeline', node.get('pipeline'))
    if 'datasets' in node:
        children = node['datasets']
        if not isinstance(children, list | tuple) or not children:
            yield Case(f'{key}.datasets', f'{children!r:.60}', 'a list of data sets')
            return
        for i, child in enumerate(children):
            yield from _dataset(run, f'{key}.datasets.{i}', child)
    elif 'dataset' in node:
        yield from _dataset(run, f'{key}.dataset', node['dataset'])
    elif not node.get('type'):
        yield Case(key, 'no type', 'the class of the data set')
    elif package_of(run, node) in KNOWN:
        for name, (fits, expected, remedy) in FORMS.items():
            if node.get(name) is not None and not fits(node[name]):
                yield Case(f'{key}.{name}', f'{node[name]!r:.60}', expected, remedy)


def _pipeline(key: str, steps: Any) -> Iterator[Case]:
    if steps is None:
        return
    if not isinstance(steps, list | tuple):
        yield Case(key, f'a {type(steps).__name__}', 'a list of dicts')
        return
    for i, step in enumerate(steps):
        if isinstance(step, str | list | tuple):
            remedy = f'dict(type={step!r})' if isinstance(step, str) else ''
            yield Case(f'{key}.{i}', f'{step!r:.60}', 'a dict with a type', remedy)


def package_of(run: Run, node: Any) -> str:
    """Package of the class of a node, empty if there is none."""
    return getattr(run.kind(node), '__module__', '').partition('.')[0]


def family(run: Run, node: Any) -> str:
    """'mmdet' or 'mmseg', where the class of a node or one of its bases is from; else empty."""
    kinds = getattr(run.kind(node), '__mro__', ())
    packages = [kind.__module__.partition('.')[0] for kind in kinds]
    return next((package for package in packages if package in PACKS), '')


PACKS = {'mmdet': 'PackDetInputs', 'mmseg': 'PackSegInputs'}
"""What makes the inputs of the models of a package."""


@rule(
    'pipeline that does not pack',
    looks_at='the steps of each `pipeline`, and whether the model is of mmdet or mmseg',
    expected='a last step that makes the inputs of the model: PackDetInputs of mmdet, PackSegInputs of mmseg',
)
def packs(run: Run) -> Iterator[Case]:
    package = family(run, run.model_cfg)
    for split in run.splits if package else []:
        for leaf, node in leaf_datasets(run.cfg, split.name):
            key, pipeline = _outermost(run, leaf)
            steps = [step for step in places(pipeline).values() if isinstance(step, dict) and 'type' in step]
            if any(package_of(run, one) not in KNOWN for one in (node, *steps)):
                continue
            last = [step for step in steps if 'Pack' in bare_type(step)]
            if not last:
                found = f'it ends with {bare_type(steps[-1])}' if steps else 'no steps'
                yield Case(f'{key}.pipeline', found, remedy=f"dict(type='{PACKS[package]}') as the last step")
            elif bare_type(last[-1]) in PACKS.values() and bare_type(last[-1]) != PACKS[package]:
                found = f'{bare_type(last[-1])}, and the model {bare_type(run.model_cfg)} is of {package}'
                yield Case(f'{key}.pipeline', found, PACKS[package], f"dict(type='{PACKS[package]}') as the last step")


def _outermost(run: Run, key: str) -> tuple[str, list]:
    """The data set or wrapper around it whose pipeline comes last, and its steps."""
    parts = key.split('.')
    around = ['.'.join(parts[:n]) for n in range(2, len(parts) + 1)]
    nodes: list[tuple[str, ConfigDict]] = [(place, look_up(run.cfg._cfg_dict, place)) for place in around]
    return next(((place, node['pipeline']) for place, node in nodes if _has_steps(node)), (key, []))


def _has_steps(node: Any) -> bool:
    return isinstance(node, dict) and bool(node.get('pipeline'))


@rule(
    'grey images of a detector for colours',
    looks_at='`color_type` of LoadImageFromFile, and `mean`, `bgr_to_rgb` and `rgb_to_bgr` of the preprocessor',
    expected="color_type='color', which makes three equal channels of a grey image, or a preprocessor of one channel",
)
def grey(run: Run) -> Iterator[Case]:
    preprocessor = run.model_cfg.get('data_preprocessor') or {}
    names = [name for name in ('bgr_to_rgb', 'rgb_to_bgr') if preprocessor.get(name)]
    names += ['mean'] * (len(preprocessor.get('mean') or ()) == 3)
    if family(run, run.model_cfg) != 'mmdet' or not names:
        return
    for split in run.splits:
        for key, node in split.datasets:
            for i, step in enumerate(node.get('pipeline') or []):
                if bare_type(step) == 'LoadImageFromFile' and str(step.get('color_type', '')).startswith('grayscale'):
                    where, what = f'{key}.pipeline.{i}.color_type', f'model.data_preprocessor.{names[0]}'
                    yield Case(where, f'{step.color_type!r}, and {what} is {preprocessor[names[0]]}')
