"""``--data``: a config with the data of users in the place of its own."""

import os
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from mmengine.config import Config, ConfigDict

from vitdense.config.datasets import leaf_datasets, metrics
from vitdense.config.needs import more_than_pictures
from vitdense.config.tree import look_up
from vitdense.console import silent_imports
from vitdense.datasets.formats import OwnData, Part
from vitdense.names import counted, listed
from vitdense.registry import bare_type

TASKS = {'mmdet': 'detection', 'mmseg': 'segmentation'}
SPLITS = ('train', 'val', 'test')
KEPT = (
    *('pipeline', 'filter_cfg', 'test_mode', 'indices', 'serialize_data', 'lazy_init', 'max_refetch', 'backend_args'),
    'return_classes',
)
"""Settings of a data set that have nothing to do with its files."""

OF_RELEASES = {
    'detection': (
        *('VOCMetric', 'LVISMetric', 'LVISFixedAPMetric', 'OpenImagesMetric', 'CrowdHumanMetric', 'CityScapesMetric'),
        'OVCocoMetric',
    ),
    'segmentation': ('CityscapesMetric',),
}
"""Metrics that know only the data that they are named after."""

GENERAL = {'detection': 'CocoMetric', 'segmentation': 'IoUMetric'}
"""Metrics of any data, see ``vitdense.evaluation``."""

LONGEST = 90
"""Letters of a value in a line; paths are told whole."""


def task_of(cfg: Config) -> str:
    """'detection' or 'segmentation', whose data ``cfg`` can take.

    Raises:
        ValueError: it is a config for something else.
    """
    scope = cfg.get('default_scope')
    if scope not in TASKS:
        raise ValueError(f'--data is for detection (mmdet) and segmentation (mmseg), default_scope is {scope!r}')
    for split in SPLITS:
        for key, leaf in leaf_datasets(cfg, split):
            kind = bare_type(leaf)
            steps = [step for step in leaf.get('pipeline') or [] if isinstance(step, dict)]
            if 'Panoptic' in kind or any(step.get('with_seg') for step in steps):
                raise ValueError(f'--data has boxes, polygons or semantic maps, {key} ({kind}) wants boxes and maps')
            if more := more_than_pictures(steps):
                raise ValueError(f'--data has boxes, polygons or semantic maps, {key}.pipeline {more}')
    return TASKS[scope]


def use_data(cfg: Config, data: OwnData, needed: tuple[str, ...], learned: tuple[str, ...] = ()) -> list[str]:
    """Let ``cfg`` read ``data``, with as many classes in all heads; returns what changed, a line each.

    Pipelines, wrappers and loaders stay as they are.

    Args:
        needed: splits that the command asks for.
        learned: classes of the checkpoint that is to be tested, in the order of its labels.

    Raises:
        ValueError: the data have no such part or no masks that the model learns, or their maps number the classes in
            another order than the checkpoint; or the config needs several data sets.
        KeyError: a type of the model is not registered.
    """
    before = deepcopy(cfg.to_dict())
    parts = _parts(data, [split for split in needed if cfg.get(f'{split}_dataloader')])
    classes, reduce_zero_label = _labels(cfg, data, learned)
    for split in SPLITS:
        loader = cfg.get(f'{split}_dataloader')
        if not isinstance(loader, dict) or split not in parts:
            continue
        cfg[f'{split}_dataloader'] = deepcopy(loader)  # those of val and test may be one
        key, leaf = _only_leaf(cfg, split)
        if data.task == 'detection':
            _use_boxes(key, leaf, data, parts[split], classes)
        else:
            _use_maps(leaf, parts[split], classes, reduce_zero_label)
        _use_metrics(cfg, split, data, parts[split])
    use_classes(cfg, len(classes))
    _name_of_best(cfg, data)
    return [*_folded(_changes(before, cfg.to_dict())), *(_advice(cfg, parts) if 'train' in needed else ())]


def _parts(data: OwnData, needed: list[str]) -> dict[str, Part]:
    """A part for each split; a test takes the validation where there is nothing else, and the other way round."""
    parts = dict(data.parts)
    evaluated = parts.get('val') or parts.get('test')
    if evaluated:
        parts = {'val': evaluated, 'test': evaluated} | parts
    for split in needed:
        if split not in parts:
            there = ', '.join(f'{part} ({counted(one.images, "image")})' for part, one in data.parts.items())
            raise ValueError(f'--data {data.root} has no images for {split}: found {there or "none"}')
    return parts


def _labels(cfg: Config, data: OwnData, learned: tuple[str, ...]) -> tuple[tuple[str, ...], bool]:
    """Classes in the order of the labels, and whether 0 is no class."""
    first = next((leaf for split in SPLITS for _, leaf in leaf_datasets(cfg, split)), ConfigDict())
    given = (first.get('metainfo') or {}).get('classes')
    given = tuple(map(str, given)) if isinstance(given, list | tuple) else ()
    if data.task == 'detection':  # they go by name
        return next((known for known in (learned, given) if set(known) == set(data.classes)), data.classes), False
    if sorted(learned) == sorted(data.classes) and learned != data.classes:
        raise ValueError(
            f'--data {data.root} numbers its classes {listed(data.classes, 8)}, the checkpoint {listed(learned, 8)}'
        )
    reduced = data.reduce_zero_label
    if data.classes:
        return data.classes, bool(reduced)
    if not given:
        raise ValueError(
            f'--data {data.root} has no names of classes: write them to {data.root / "classes.txt"}, one a line in the '
            'order of their numbers'
        )
    return given, bool(first.get('reduce_zero_label')) if reduced is None else reduced


def _only_leaf(cfg: Config, split: str) -> tuple[str, ConfigDict]:
    """The data set of a split within its wrappers, of several that are joined the first.

    Raises:
        ValueError: batches are made of several, as labelled and unlabelled ones.
    """
    loader = cfg[f'{split}_dataloader']
    leaves = list(leaf_datasets(cfg, split))
    sampler = bare_type(loader.get('sampler'))
    if not leaves or (len(leaves) > 1 and ('MultiSource' in sampler or 'MultiData' in sampler)):
        raise ValueError(f'--data is one data set, {split}_dataloader has {len(leaves)} with {sampler or "no sampler"}')
    node = loader
    while isinstance(node, dict):
        if node.get('datasets'):
            node['datasets'] = list(node['datasets'])[:1]
        node = node['datasets'][0] if node.get('datasets') else node.get('dataset')
    return next(leaf_datasets(cfg, split))


def _use_boxes(key: str, leaf: ConfigDict, data: OwnData, part: Part, classes: tuple[str, ...]) -> None:
    steps = [step for step in leaf.get('pipeline') or [] if isinstance(step, dict)]
    if any(step.get('with_mask') for step in steps) and not data.masks:
        raise ValueError(f'{key} trains masks (with_mask), but --data {data.root} has boxes only: take a box detector')
    _replace(leaf, 'vitdense.CocoDataset', part, dict(img=''), dict(classes=classes))


def _use_maps(leaf: ConfigDict, part: Part, classes: tuple[str, ...], reduce_zero_label: bool) -> None:
    same = tuple((leaf.get('metainfo') or {}).get('classes') or ()) == classes
    metainfo = leaf.metainfo if same else dict(classes=classes)  # with the palette
    _replace(leaf, 'vitdense.PairedMapsDataset', part, dict(img_path='', seg_map_path=''), metainfo)
    leaf.reduce_zero_label = reduce_zero_label
    for step in leaf.get('pipeline') or []:
        if isinstance(step, dict) and step.get('reduce_zero_label') is not None:
            step['reduce_zero_label'] = reduce_zero_label


def _replace(leaf: ConfigDict, kind: str, part: Part, prefix: dict[str, str], metainfo: dict[str, Any]) -> None:
    """Put another data set in the place of ``leaf``."""
    kept = {key: leaf[key] for key in KEPT if key in leaf}
    leaf.clear()
    leaf.update(type=kind, data_root=part.folder, ann_file=part.ann_file, data_prefix=prefix, metainfo=metainfo, **kept)


def _use_metrics(cfg: Config, split: str, data: OwnData, part: Part) -> None:
    """Let the evaluator read the same file, with one metric of any data in the place of those of other data."""
    evaluator = cfg.get(f'{split}_evaluator')
    if bare_type(evaluator) == 'MultiDatasetsEvaluator':  # a metric for each of several data sets, of which one is left
        cfg[f'{split}_evaluator'] = [next(metrics(cfg, split))[1]]
    general, special = GENERAL[data.task], OF_RELEASES[data.task]
    there = any(bare_type(metric) == general for _, metric in metrics(cfg, split))
    for key, metric in reversed(list(metrics(cfg, split))):
        if bare_type(metric) not in special:
            continue
        above, _, number = key.rpartition('.')
        if there and number.isdigit():
            look_up(cfg._cfg_dict, above).pop(int(number))
            continue
        measured = [name for name in ('bbox', 'segm') if name in (metric.get('metric') or ())] or ['bbox']
        metric.clear()
        metric.update(type=f'vitdense.{general}', **(dict(metric=measured) if data.task == 'detection' else {}))
        there = True
    for _, metric in metrics(cfg, split):
        if data.task == 'detection' and (bare_type(metric) == 'CocoMetric' or 'ann_file' in metric):
            metric['ann_file'] = part.ann_file


def _name_of_best(cfg: Config, data: OwnData) -> None:
    """Keep the best checkpoint by the main metric where the config has that of another data set."""
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    best = checkpoint.get('save_best')
    if isinstance(best, str) and best.split('/')[0] in (
        'pascal_voc',
        'lvis',
        'openimages',
        'crowd_human',
        'cityscapes',
    ):
        checkpoint['save_best'] = 'auto'


def use_classes(cfg: Config, number: int) -> None:
    """Let all heads that classify into the classes of the data, and their losses, have ``number`` of them.

    Raises:
        ValueError: a head counts things and stuff.
        BuildError, KeyError: see :func:`~vitdense.config.building.building`.
    """
    with silent_imports():
        import vitdense.engine  # noqa: F401  first: it silences what onedl's packages print
        from vitdense.config.building import building
        from vitdense.config.class_counts import classifying_heads, is_split, place_of
        from vitdense.config.swap.measure import build_weightless, scope_of, without_weights

    with building(cfg), scope_of(cfg), silent_imports():
        model = build_weightless(_bare(without_weights(cfg.model)))
    for name, head in classifying_heads(model):
        node = look_up(cfg.model, place_of(name, cfg.model))
        if not isinstance(node, dict):
            continue
        if is_split(head):
            if head.num_stuff_classes:
                raise ValueError(f'--data has objects, model.{name} counts things and stuff: take one of instances')
            node.update(num_things_classes=number, num_stuff_classes=0)
        elif 'num_classes' in node or not any('num_classes' in inner for inner in _dicts(node)):
            node['num_classes'] = number  # else it has them from a part of its own
        old: Any = head.num_classes
        outputs = node.get('out_channels')
        if cfg.default_scope == 'mmseg' and outputs in (old, 1) and not (outputs == 1 and number == 2):
            node['out_channels'] = number
        for inner in _dicts(node):
            _fit(inner, old, number)


def _bare(model: ConfigDict) -> ConfigDict:
    """The model without its preprocessor, and without norms that cannot be built before the processes have joined."""
    if 'data_preprocessor' in model:
        model.data_preprocessor = None
    for node in _dicts(model):
        if bare_type(node) == 'MMSyncBN':
            node['type'] = 'BN'
    return model


def _fit(node: dict, old: int, number: int) -> None:
    """Let a part of a head that had a value for each of ``old`` classes have ``number`` of them.

    Equal weights of classes, and the last one of the background, are kept; others are of the classes that were there.
    """
    if node.get('num_classes') == old:
        node['num_classes'] = number
    weights = node.get('class_weight')
    if isinstance(weights, list | tuple) and len(weights) in (old, old + 1) and number != old:
        equal = len(set(weights[:old])) == 1
        node['class_weight'] = [*weights[:1] * number, *weights[old:]] if equal else None


def _dicts(node: Any) -> Iterator[dict]:
    """All dicts below a config node."""
    for child in node.values() if isinstance(node, dict) else node:
        if isinstance(child, dict):
            yield child
        if isinstance(child, dict | list | tuple):
            yield from _dicts(child)


def _changes(old: Any, new: Any, place: str = '') -> Iterator[str]:
    """Lines about what differs between two trees."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*new, *(key for key in old if key not in new)]:
            below = f'{place}.{key}' if place else str(key)
            if key not in new:
                yield f'{below}: {_short(old[key])} -> removed'
            elif key not in old:
                yield f'{below}: -> {_short(new[key])}'
            else:
                yield from _changes(old[key], new[key], below)
    elif (
        isinstance(old, list)
        and isinstance(new, list)
        and len(old) == len(new)
        and any(isinstance(one, dict) for one in new)
    ):
        for i, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _changes(before, after, f'{place}.{i}')
    elif old != new and not (isinstance(old, list) and isinstance(new, tuple) and tuple(old) == new):
        yield f'{place}: {_short(old)} -> {_short(new)}'


def _folded(lines: Iterator[str]) -> list[str]:
    """The same change of several splits in one line: ``{train,val}_dataloader.dataset.type: ...``."""
    splits: dict[str, list[str]] = {}
    for line in lines:
        split, _, rest = line.partition('_')
        splits.setdefault(rest if split in SPLITS else line, []).append(split)
    said = []
    for rest, found in splits.items():
        found.sort(key=lambda split: SPLITS.index(split) if split in SPLITS else 0)
        if found[0] not in SPLITS:
            said.append(rest)
        else:
            said.append(f'{found[0] if len(found) == 1 else "{" + ",".join(found) + "}"}_{rest}')
    return said


def _short(value: Any) -> str:
    text = repr(value)
    return text if isinstance(value, str) or len(text) <= LONGEST else f'{text[: LONGEST - 4]} ...'


def _advice(cfg: Config, parts: dict[str, Part]) -> Iterator[str]:
    """How long an epoch is, which is another one with other data."""
    loader, part = cfg.get('train_dataloader'), parts.get('train')
    size = loader.get('batch_size') if isinstance(loader, dict) else None
    if not part or not isinstance(size, int):
        return
    images, size = part.images * _times(loader.get('dataset')), size * int(os.environ.get('WORLD_SIZE', 1))
    line = f'batch: {counted(images, "image")}, {size} a step, {counted(-(-images // size), "step")} an epoch'
    steps = (cfg.get('train_cfg') or {}).get('max_iters')
    if isinstance(steps, int):
        epochs = steps * size / images
        line += f'; {steps} steps are {epochs:.{0 if epochs >= 10 else 1}f} epochs'
    yield f'{line} (train_dataloader.batch_size)'


def _times(node: Any) -> int:
    """How often a data set within its wrappers is gone through in an epoch."""
    if not isinstance(node, dict):
        return 1
    inner = node.get('dataset') or next(iter(node.get('datasets') or ()), None)
    return (node.get('times', 1) if bare_type(node) == 'RepeatDataset' else 1) * _times(inner)


def describe(data: OwnData) -> list[str]:
    """Lines about the data as they were found."""
    parts = ', '.join(f'{part} {counted(one.images, "image")}' for part, one in data.parts.items())
    named = listed(data.classes, 8) if data.classes else 'not named, those of the config'
    number = f'{len(data.classes)} ' if data.classes else ''
    return [f'{data.root}: {data.format}; {parts}; {number}classes: {named}', *data.remarks]
