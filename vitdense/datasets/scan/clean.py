"""Copies of annotation files without what a scan found."""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from mmengine.config import Config
from mmengine.fileio import list_from_file

from vitdense.config.datasets import leaf_datasets, metrics
from vitdense.files import replacing
from vitdense.findings import Finding, RunError, by_kind

from ..coco_fields import FLAGS, categories_by_name, flag, is_id, read_json
from .report import SplitReport, raise_findings
from .resolve import Leaf, find_leaves
from .truth import KEPT

T = TypeVar('T')


def drop_findings(cfg: Config, reports: Sequence[SplitReport], folder: str | os.PathLike) -> list[str]:
    """Point ``cfg`` at copies of its annotation files that are free of the fatal findings.

    For COCO data the copies are json files, for semantic maps and XML files lists of the images that are left. Boxes
    of the training are cut to their images. The ground truth of a validation or test is not changed: its faults stay
    where an evaluation works with them, pictures that cannot be loaded are not predicted, and evaluators that read the
    file get all of its objects. Only ``folder`` is written to.

    Returns:
        Lines for the log: what was left out, of each kind.

    Raises:
        RunError: there are findings that leaving something out does not mend.
    """
    reports = [report for report in reports if report.fatal]
    hopeless = [replace(report, findings=[f for f in report.fatal if not f.leave_out]) for report in reports]
    raise_findings(hopeless)
    lines = []
    for report in reports:
        kept = [finding for finding in report.fatal if finding.leave_out == KEPT]
        mended = [finding for finding in report.fatal if finding.leave_out != KEPT]
        for kind, cases in by_kind(kept).items():
            lines.append(
                f'{report.key}: {kind}: {len(cases)} kept, first {cases[0].where}: a ground truth is not changed'
            )
        if not mended:
            continue
        Path(folder).mkdir(parents=True, exist_ok=True)
        leaf = _find(cfg, report.key)
        clean = CLEANERS[leaf.kind]
        path, truth, summary = clean(leaf, report, mended, Path(folder).absolute() / report.key.replace('.', '_'))
        _point_at(cfg, leaf, str(path), str(truth or path))
        if leaf.kind == 'seg':
            _check_list(_find(cfg, report.key), path)
        for kind, cases in by_kind(mended).items():
            lines.append(f'{report.key}: {kind}: {len(cases)} left out or mended, first {cases[0].where}')
        lines.append(f'{report.key}: {summary}, in {path}')
    return lines


def _find(cfg: Config, key: str) -> Leaf:
    return next(leaf for leaf in find_leaves(cfg, key.split('_')[0]) if leaf.key == key)


def _check_list(leaf: Leaf, path: Path) -> None:
    """Make sure that a data set reads its list of names, which classes of users need not do."""
    listed, found = len(path.read_text(encoding='utf-8').splitlines()), len(leaf.dataset.load_data_list())
    if listed != found:
        raise RunError(f'{leaf.key}: {leaf.type} has {found} images where its ann_file {path} lists {listed}')


def _point_at(cfg: Config, leaf: Leaf, path: str, truth: str) -> None:
    split = leaf.key.split('_')[0]
    before = os.path.abspath(leaf.dataset.ann_file) if leaf.dataset.ann_file else None
    dict(leaf_datasets(cfg, split))[leaf.key].ann_file = path
    for _, metric in metrics(cfg, split):
        given = metric.get('ann_file')
        if given and os.path.abspath(given) == before:
            metric.ann_file = truth


def _clean_coco(
    leaf: Leaf, report: SplitReport, findings: Sequence[Finding], path: Path
) -> tuple[Path, str | Path | None, str]:
    """Write the copy of a file; where it is, where the ground truth is if that has more, and what is left."""
    content = read_json(leaf.dataset.ann_file)
    content.setdefault('annotations', [])  # a test may come without
    indices = _indices(findings)
    whole = path.with_suffix('.json')
    if any(finding.leave_out == 'classes' for finding in findings):
        _use_classes(content, report.classes)
    _mend(content, indices)
    before = {key: len(content[key]) for key in ('images', 'annotations')}
    content['annotations'] = _without(content['annotations'], indices['annotation'])
    truth = None
    if not report.trains and indices['image']:
        pictures = {finding.leave_out for finding in findings} == {'image'}
        name = path.with_name(f'{path.name}_truth.json')
        truth = leaf.dataset.ann_file if pictures else write(name, json.dumps(content))
    content['images'] = _without(content['images'], indices['image'])
    images = {image['id'] for image in content['images']}
    categories = {category['id'] for category in content['categories']}
    content['annotations'] = [
        annotation
        for annotation in content['annotations']
        if annotation['image_id'] in images and annotation['category_id'] in categories
    ]
    left = ', '.join(f'{len(content[key])} of {number} {key}' for key, number in before.items())
    return write(whole, json.dumps(content)), truth, f'{left} are left'


def _clean_list(
    leaf: Leaf, report: SplitReport, findings: Sequence[Finding], path: Path
) -> tuple[Path, str | Path | None, str]:
    dataset = leaf.dataset
    everything = dataset.load_data_list()
    kept = _without(everything, _indices(findings)['image'])
    if not kept:
        raise RunError(f'{report.key}: --lenient would leave out all {len(everything)} images')
    folder, suffix = dataset.data_prefix.get('img_path') or '', dataset.img_suffix
    names = [os.path.relpath(info['img_path'], folder or '.').removesuffix(suffix) for info in kept]
    summary = f'{len(kept)} of {len(everything)} images are left'
    return write(path.with_suffix('.txt'), ''.join(f'{name}\n' for name in names)), None, summary


def _clean_lines(
    leaf: Leaf, report: SplitReport, findings: Sequence[Finding], path: Path
) -> tuple[Path, str | Path | None, str]:
    """Copy the lines of a list of names that are left; the data set makes one entry of each line."""
    lines = list_from_file(leaf.dataset.ann_file)
    kept = _without(lines, _indices(findings)['image'])
    if not kept:
        raise RunError(f'{report.key}: --lenient would leave out all {len(lines)} images')
    summary = f'{len(kept)} of {len(lines)} images are left'
    return write(path.with_suffix('.txt'), ''.join(f'{line}\n' for line in kept)), None, summary


CLEANERS = {'coco': _clean_coco, 'seg': _clean_list, 'listed': _clean_lines}
"""How a copy of the annotation file is made, by the kind of the data set."""


def _indices(findings: Sequence[Finding]) -> dict[str, set[int]]:
    kinds = ('annotation', 'image', 'id', 'area', 'flag', 'box')
    return {kind: {finding.index for finding in findings if finding.leave_out == kind} for kind in kinds}


def _without(entries: list[T], indices: set[int]) -> list[T]:
    return [entry for i, entry in enumerate(entries) if i not in indices]


def _mend(content: dict, indices: dict[str, set[int]]) -> None:
    """New ids where they are missing or used before, boxes within their images, flags and areas as numbers."""
    annotations = content['annotations']
    numbers = [annotation.get('id') for annotation in annotations]
    free = int(max((number for number in numbers if is_id(number) and not isinstance(number, str)), default=0)) + 1
    for step, i in enumerate(sorted(indices['id'])):
        annotations[i]['id'] = free + step
    sizes = {image['id']: (image.get('width'), image.get('height')) for image in content['images'] if 'id' in image}
    for i in indices['box']:
        _cut(annotations[i], *sizes[annotations[i]['image_id']])
    for i in indices['flag']:
        annotations[i].update({key: int(bool(flag(annotations[i].get(key)))) for key in FLAGS})
    for i in indices['area']:
        annotations[i]['area'] = annotations[i]['bbox'][2] * annotations[i]['bbox'][3]


def _cut(annotation: dict, width: float, height: float) -> None:
    """Cut a box to its image, and its area by as much."""
    x, y, w, h = annotation['bbox']
    left, top = max(x, 0), max(y, 0)
    annotation['bbox'] = [left, top, min(x + w, width) - left, min(y + h, height) - top]
    if isinstance(annotation.get('area'), int | float):
        annotation['area'] *= annotation['bbox'][2] * annotation['bbox'][3] / (w * h)


def _use_classes(content: dict, classes: Sequence[str]) -> None:
    """The categories of ``classes``, in this order; a class that the file does not have gets a new id."""
    used = {annotation.get('category_id') for annotation in content['annotations']}
    by_name = categories_by_name(content['categories'], used)
    numbers = [category['id'] for category in content['categories'] if isinstance(category['id'], int | float)]
    free = int(max(numbers, default=0)) + 1
    missing = [name for name in classes if name not in by_name]
    by_name.update({name: {'id': free + i, 'name': name} for i, name in enumerate(missing)})
    content['categories'] = [by_name[name] | {'name': name} for name in classes]


def write(path: Path, text: str) -> Path:
    """Write a file at once or not at all.

    Raises:
        ValueError: a name in it has bytes that are no UTF-8, as which mmseg and mmdet read lists.
    """
    try:
        content = text.encode()
    except UnicodeEncodeError as error:
        line = text[: error.start].rpartition('\n')[2] + text[error.start :].partition('\n')[0]
        raise ValueError(
            f'--lenient: {line} has bytes that are no UTF-8, so no list can name it; rename the file, or leave it out'
        ) from None
    with replacing(path) as part:
        part.write_bytes(content)
    return path
