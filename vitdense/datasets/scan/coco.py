"""The scan of a data set in COCO format."""

import os
from pathlib import Path

import numpy as np

from vitdense.config.datasets import positions
from vitdense.findings import Finding

from . import rules
from .boxes import check_annotations
from .classes import check_categories, check_names
from .coco_file import CocoFile, FileFault, read_coco
from .pictures import Loader, in_threads, look, missing_files, same_pictures, size_fault, spread
from .report import SplitReport
from .resolve import Leaf, follows_file_order

CHEAP = 64 * 2**20
"""Bytes of a file that is read only for its counts."""


def read(leaf: Leaf) -> bytes:
    """The annotation file.

    Raises:
        FileFault: it is no file.
    """
    path = Path(leaf.dataset.ann_file)
    if not leaf.node.get('ann_file', leaf.dataset.ann_file):
        raise FileFault(f'{leaf.key}.ann_file is not given')
    if path.is_dir():
        raise FileFault(f'{leaf.key}.ann_file is the folder {path}, expected a COCO file')
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileFault(f'{leaf.key}.ann_file {path} cannot be read: {error.strerror}') from None


def count(leaf: Leaf, report: SplitReport, content: bytes) -> None:
    """Images and class table, if they cost little."""
    if len(content) < CHEAP:
        _count(leaf, report, read_coco(leaf.dataset.ann_file, content, not leaf.is_test))


def examine(leaf: Leaf, report: SplitReport, content: bytes, most: int | None) -> list[str]:
    """Fill ``report`` from the annotation file and at most ``most`` images; the files and folders it rests on."""
    dataset = leaf.dataset
    path = dataset.ann_file
    report.findings += check_names(dataset.metainfo.get('classes'), leaf.key)
    if report.findings:
        return []
    file = read_coco(path, content, not leaf.is_test)
    categories = [category['name'] for category in file.categories]
    is_default = report.classes == tuple(type(dataset).METAINFO.get('classes', ()))
    report.findings += check_categories(report.classes, categories, path, is_default, follows_file_order(dataset))
    check_annotations(file, any(step.get('with_mask') for step in leaf.steps('LoadAnnotations')))
    paths, note = _image_paths(leaf, file)
    missing = missing_files(list(paths.values()))
    file.findings += [
        Finding(rules.MISSING_IMAGE, path, f'there is no such file (image {file.images[i]["id"]!r})', True, 'image', i)
        for i, path in paths.items()
        if path in missing
    ]
    used = _count(leaf, report, file)
    opened: list[int] = []
    if note or leaf.loader is None:
        report.note = note
    else:
        opened = spread([i for i in used if i in paths], most)
        _look_at(leaf, leaf.loader, report, file, {i: paths[i] for i in opened})
        used = _count(leaf, report, file)
    report.findings += _empty(leaf, report, file)
    report.findings += file.findings
    return [*{os.path.dirname(path) for path in paths.values()}, *(paths[i] for i in opened)]


def _image_paths(leaf: Leaf, file: CocoFile) -> tuple[dict[int, str], str]:
    """Path of each usable image by its index, as the data set makes it; and why images are not opened, or ''."""
    if leaf.loader is None:
        return {}, 'images not opened: the pipeline loads them in another way'
    paths = {}
    for i in np.flatnonzero(file.left_by('image')).tolist():
        raw = dict(raw_img_info=dict(file.images[i], img_id=file.images[i]['id']), raw_ann_info=[])
        try:
            paths[i] = leaf.dataset.parse_data_info(raw)['img_path']
        except Exception as error:  # a method of somebody else that wants more than this
            return {}, f'images not opened: {leaf.type}.parse_data_info: {type(error).__name__}: {error}'
    return paths, ''


def _look_at(leaf: Leaf, loader: Loader, report: SplitReport, file: CocoFile, paths: dict[int, str]) -> None:
    """Open images and compare them with what the file says."""
    pictures = list(in_threads(lambda path: look(path, loader), list(paths.values()), f'{leaf.key}: images'))
    for i, picture in zip(paths, pictures, strict=True):
        where = f'{picture.path} (image {file.images[i]["id"]!r})'
        wh = tuple(file.wh[i].astype(int).tolist())
        if picture.error:
            file.findings.append(Finding(rules.UNREADABLE_IMAGE, where, picture.error, True, 'image', i))
        elif fault := size_fault(picture, wh, 'the json'):
            kind, message, fatal = fault
            file.findings.append(Finding(kind, where, message, fatal, 'image' if fatal else '', i))
    report.opened = len(pictures)
    report.digests = {picture.path: picture.digest for picture in pictures if picture.digest}
    file.findings += same_pictures(pictures)


def _count(leaf: Leaf, report: SplitReport, file: CocoFile) -> list[int]:
    """Put images and class table into ``report``; the indices of the images that are used.

    An image is used unless a finding removes it or the data set's ``filter_cfg`` or ``indices`` leave it out. Crowds
    are no instances, neither are boxes that mmdet leaves out.
    """
    dataset = leaf.dataset
    names = [category['name'] for category in file.categories]
    label_of = np.array([report.classes.index(name) if name in report.classes else -1 for name in names] + [-1])
    label = label_of[file.category_of]
    good_image = file.left_by('image')
    present = (label >= 0) & (file.image_of >= 0) & file.left_by('annotation')
    present &= good_image[file.image_of] if len(good_image) else False
    used = good_image.copy()
    if dataset.filter_cfg and not dataset.test_mode:
        if dataset.filter_cfg.get('filter_empty_gt', False):
            used &= np.isin(np.arange(len(used)), file.image_of[present])
        used &= ~(file.wh.min(1, initial=np.inf) < dataset.filter_cfg.get('min_size', 0))
    indices = np.flatnonzero(used)
    indices = indices[positions(len(indices), dataset._indices)]
    with np.errstate(invalid='ignore'):
        seen_by_mmdet = file.boxes[:, 2:].min(1) >= 1
    counted = present & np.isin(file.image_of, indices) & ~file.crowd & ~file.ignored & seen_by_mmdet
    pairs = np.unique(np.stack([label[counted], file.image_of[counted]], 1), axis=0)
    images = np.bincount(pairs[:, 0], minlength=len(report.classes)).tolist()
    instances = np.bincount(label[counted], minlength=len(report.classes)).tolist()
    report.images = len(indices)
    report.per_class = {name: (images[k], instances[k]) for k, name in enumerate(report.classes)}
    return indices.tolist()


def _empty(leaf: Leaf, report: SplitReport, file: CocoFile) -> list[Finding]:
    """A finding if nothing is left to train on or to evaluate."""
    if report.images and (leaf.is_test or any(count for _, count in report.per_class.values())):
        return []
    given = f'the file has {len(file.images)} images and {len(file.annotations)} annotations'
    if not report.images:
        rule = '' if leaf.dataset.test_mode else f', filter_cfg is {leaf.dataset.filter_cfg}'
        return [Finding(rules.EMPTY, leaf.dataset.ann_file, f'no image is left: {given}{rule}')]
    message = f'no annotation of the classes is left: {given}'
    return [Finding(rules.EMPTY, leaf.dataset.ann_file, message, leaf.key.startswith('train_'))]
