"""Copies of annotation files without what a scan found."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config, ConfigDict

from vitdense.config.datasets import evaluators, leaf_datasets
from vitdense.files import replacing
from vitdense.findings import Finding, RunError, by_kind

from .report import SplitReport, raise_findings
from .resolve import Leaf, find_leaves


def drop_findings(cfg: Config, reports: Sequence[SplitReport], folder: str | os.PathLike) -> list[str]:
    """Point ``cfg`` at copies of its annotation files that are free of the fatal findings.

    For COCO data the copies are json files, for semantic maps lists of the images that are left. Evaluators that read
    the same file are pointed at the copy as well. Only ``folder`` is written to.

    Returns:
        Lines for the log: what was left out, of each kind.

    Raises:
        RunError: there are findings that leaving something out does not mend.
    """
    reports = [report for report in reports if report.fatal]
    hopeless = [
        SplitReport(report.key, report.dataset, ann_file=report.ann_file, findings=findings)
        for report in reports
        if (findings := [finding for finding in report.fatal if not finding.leave_out])
    ]
    raise_findings(hopeless)
    if reports:
        Path(folder).mkdir(parents=True, exist_ok=True)
    lines = []
    for report in reports:
        leaf = _find(cfg, report.key)
        clean = _clean_coco if leaf.kind == 'coco' else _clean_list
        path, summary = clean(leaf, report, Path(folder).absolute() / report.key.replace('.', '_'))
        _point_at(cfg, leaf, str(path))
        if leaf.kind == 'seg':
            _check_list(_find(cfg, report.key), path)
        for kind, cases in by_kind(report.fatal).items():
            lines.append(f'{report.key}: {kind}: {len(cases)} left out or mended, first {cases[0].where}')
        lines.append(f'{report.key}: {summary}, in {path}')
    return lines


def _find(cfg: Config, key: str) -> Leaf:
    return next(leaf for leaf in find_leaves(cfg, key.split('_')[0]) if leaf.key == key)


def _check_list(leaf: Leaf, path: Path) -> None:
    """Make sure that a data set reads its list of names, which classes of users need not do."""
    listed, found = len(path.read_text().splitlines()), len(leaf.dataset.load_data_list())
    if listed != found:
        raise RunError(f'{leaf.key}: {leaf.type} has {found} images where its ann_file {path} lists {listed}')


def _point_at(cfg: Config, leaf: Leaf, path: str) -> None:
    split = leaf.key.split('_')[0]
    before = os.path.abspath(leaf.dataset.ann_file) if leaf.dataset.ann_file else None
    dict(leaf_datasets(cfg, split))[leaf.key].ann_file = path
    for evaluator in evaluators(cfg, split):
        given = evaluator.get('ann_file') if isinstance(evaluator, ConfigDict) else None
        if given and os.path.abspath(given) == before:
            evaluator.ann_file = path


def _clean_coco(leaf: Leaf, report: SplitReport, path: Path) -> tuple[Path, str]:
    content = json.loads(Path(leaf.dataset.ann_file).read_text())
    indices = _indices(report.fatal)
    if any(finding.leave_out == 'classes' for finding in report.fatal):
        _use_classes(content, report.classes)
    _mend(content['annotations'], indices['id'], indices['area'])
    before = {key: len(content[key]) for key in ('images', 'annotations')}
    content['images'] = _without(content['images'], indices['image'])
    images = {image['id'] for image in content['images']}
    categories = {category['id'] for category in content['categories']}
    content['annotations'] = [
        annotation
        for annotation in _without(content['annotations'], indices['annotation'])
        if annotation['image_id'] in images and annotation['category_id'] in categories
    ]
    left = ', '.join(f'{len(content[key])} of {number} {key}' for key, number in before.items())
    return write(path.with_suffix('.json'), json.dumps(content)), f'{left} are left'


def _clean_list(leaf: Leaf, report: SplitReport, path: Path) -> tuple[Path, str]:
    dataset = leaf.dataset
    everything = dataset.load_data_list()
    kept = _without(everything, _indices(report.fatal)['image'])
    if not kept:
        raise RunError(f'{report.key}: --lenient would leave out all {len(everything)} images')
    folder, suffix = dataset.data_prefix.get('img_path') or '', dataset.img_suffix
    names = [os.path.relpath(info['img_path'], folder or '.').removesuffix(suffix) for info in kept]
    return write(path.with_suffix('.txt'), ''.join(f'{name}\n' for name in names)), (
        f'{len(kept)} of {len(everything)} images are left'
    )


def _indices(findings: Sequence[Finding]) -> dict[str, set[int]]:
    kinds = ('annotation', 'image', 'id', 'area')
    return {kind: {finding.index for finding in findings if finding.leave_out == kind} for kind in kinds}


def _without(entries: list[dict], indices: set[int]) -> list[dict]:
    return [entry for i, entry in enumerate(entries) if i not in indices]


def _mend(annotations: list[dict], without_id: set[int], without_area: set[int]) -> None:
    """New ids where they are missing or used before, and the area of the box where there is none."""
    numbers = [annotation.get('id') for annotation in annotations]
    free = max((number for number in numbers if isinstance(number, int)), default=0) + 1
    for step, i in enumerate(sorted(without_id)):
        annotations[i]['id'] = free + step
    for i in without_area:
        annotations[i]['area'] = annotations[i]['bbox'][2] * annotations[i]['bbox'][3]


def _use_classes(content: dict, classes: Sequence[str]) -> None:
    """The categories of ``classes``, in this order; a class that the file does not have gets a new id."""
    by_name = {category['name']: category for category in content['categories']}
    numbers = [category['id'] for category in content['categories'] if isinstance(category['id'], int)]
    free = max(numbers, default=0) + 1
    missing = [name for name in classes if name not in by_name]
    by_name.update({name: {'id': free + i, 'name': name} for i, name in enumerate(missing)})
    content['categories'] = [by_name[name] for name in classes]


def write(path: Path, text: str) -> Path:
    """Write a file at once or not at all."""
    with replacing(path) as part:
        part.write_text(text)
    return path
