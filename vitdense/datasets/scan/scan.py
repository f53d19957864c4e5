"""The scan of a config's data sets."""

import os
from dataclasses import replace
from typing import Any

from mmengine.config import Config

from vitdense.compat.requirements import missing_package
from vitdense.findings import Finding
from vitdense.untrusted.pictures import most_pixels

from . import cache, coco, listed, rules, seg
from .classes import check_categories
from .coco_file import FileFault
from .report import SplitReport
from .resolve import Leaf, find_leaves, is_remote

MOST_OPENED = 500
CHECKS = ('full', 'sample', 'off')
KINDS = {'coco': coco, 'seg': seg, 'listed': listed}


def scan_data(cfg: Config, splits: tuple[str, ...] = ('train', 'val'), check: str = 'sample') -> list[SplitReport]:
    """Look for mistakes in the annotations and images of ``cfg``'s data sets; nothing is raised for them.

    What was found is kept in ``$VITDENSE_CACHE`` (``~/.cache/vitdense``), by the content of annotation files and the
    names, sizes and times of image files. Generated data sets are there afterwards.

    Args:
        splits: of 'train', 'val' and 'test'; those that ``cfg`` does not have are passed over.
        check: 'full' opens all images, 'sample' at most 500 of each data set, evenly spread, 'off' only counts.

    Returns:
        One report for each data set, those within wrappers such as RepeatDataset included.

    Raises:
        ValueError: unknown ``check``.
        KeyError: the type of a data set is not registered.
    """
    if check not in CHECKS:
        raise ValueError(f'check is {check!r}, expected one of {CHECKS}')
    leaves = [leaf for split in splits for leaf in find_leaves(cfg, split)]
    reports = [_scan(leaf, check) for leaf in leaves]
    _compare_names(leaves, reports)
    _find_leaks(reports)
    return reports


def _scan(leaf: Leaf, check: str) -> SplitReport:
    report = SplitReport(leaf.key, leaf.type)
    if not leaf.kind:
        report.note = f'not scanned: type {leaf.type}'
        return report
    if leaf.fault:
        broken = rules.CLASS_NAMES if leaf.kind == 'seg' else rules.ANNOTATION_FILE
        broken = rules.PACKAGE if leaf.lacks else broken
        report.findings.append(Finding(broken, leaf.key, leaf.fault))
        return report
    names = leaf.dataset.metainfo.get('classes') or ()
    report.classes = tuple(names) if isinstance(names, list | tuple) else (str(names),)
    report.ann_file = leaf.dataset.ann_file or ''
    if is_remote(leaf):
        report.note = 'not scanned: the files are not local'
        return report
    kind = KINDS[leaf.kind]
    try:
        if check == 'off' and kind is listed and listed.is_large(leaf):
            report.note = 'not checked'
            return report
        content = kind.read(leaf)
        if check == 'off':
            kind.count(leaf, report, content)
            report.note = report.note or 'not checked'
            return report
        key = cache.cache_key(
            content, {**_settings(leaf), 'check': check, 'most': MOST_OPENED, 'pixels': most_pixels()}
        )
        known = cache.load(key)
        if known:
            known.key = leaf.key
            return known
        paths = kind.examine(leaf, report, content, MOST_OPENED if check == 'sample' else None)
    except ImportError as error:
        report.findings.append(_package(leaf, error))
        return report
    except FileFault as fault:
        if check == 'off':
            report.note = f'not checked: {fault}'
        else:
            report.findings.append(Finding(rules.ANNOTATION_FILE, leaf.key, str(fault)))
        return report
    cache.store(key, report, paths)
    return report


def _settings(leaf: Leaf) -> dict[str, Any]:
    """What the findings depend on besides the files."""
    dataset = leaf.dataset
    names = ('test_mode', 'filter_cfg', '_indices', 'img_suffix', 'seg_map_suffix', 'reduce_zero_label', 'ignore_index')
    return {
        'type': f'{type(dataset).__module__}.{leaf.type}',
        'file': os.path.abspath(dataset.ann_file or ''),
        'folders': {key: os.path.abspath(str(path or '')) for key, path in dataset.data_prefix.items()},
        'given': (leaf.node.get('metainfo') or {}).get('classes'),
        'metainfo': {key: dataset.metainfo.get(key) for key in ('classes', 'label_map')},
        'default_classes': type(dataset).METAINFO.get('classes'),
        'pipeline': leaf.node.get('pipeline'),
        'loader': leaf.loader,
        'ignored': leaf.ignored,
        'split': leaf.key.split('_')[0],
        **{name: getattr(dataset, name, None) for name in names},
    }


def _package(leaf: Leaf, error: ImportError) -> Finding:
    needed = missing_package(type(leaf.dataset)) or error.name
    message = f'{leaf.type} needs {needed}, which is not installed' if needed else f'{leaf.type}: {error}'
    return Finding(rules.PACKAGE, leaf.key, message, remedy=f'pip install {needed}' if needed else str(error))


def _compare_names(leaves: list[Leaf], reports: list[SplitReport]) -> None:
    """Names of the objects in files against the classes, for those whose files have no list of categories.

    A class that no file of the training has is a fault where others have names that are no classes: one of them may be
    meant. In a validation it may be rare.
    """
    for leaf, report in zip(leaves, reports, strict=True):
        others = [one for one in reports if one is not report and one.key.split('_')[0] == report.key.split('_')[0]]
        if report.classes and set(report.names) - set(report.classes):
            elsewhere = {name: 0 for one in others for name in report.classes if one.has(name)}
            is_default = report.classes == tuple(type(leaf.dataset).METAINFO.get('classes', ()))
            where = report.ann_file or report.key
            mends = 'classes' if leaf.listing.lines else ''
            report.findings += [
                replace(found, fatal=found.fatal and report.trains, leave_out=mends if report.trains else '')
                for found in check_categories(report.classes, {**elsewhere, **report.names}, where, is_default, '')
            ]


def _find_leaks(reports: list[SplitReport]) -> None:
    """A remark for each image of another split that is one of the training images."""
    trained = {}
    for report in reports:
        if report.trains:
            trained.update({digest: path for path, digest in report.digests.items()})
    for report in reports:
        if not report.trains:
            report.findings += [
                Finding(rules.LEAK, path, f'the same picture is in the training data: {trained[digest]}', False)
                for path, digest in report.digests.items()
                if digest in trained
            ]
