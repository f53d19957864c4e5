"""The scan of a data set in COCO format."""

import codecs
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from vitdense.config.datasets import positions
from vitdense.findings import Finding
from vitdense.untrusted.files import read_regular

from ..coco_fields import FLAGS
from . import rules
from .bounds import crowded, elsewhere
from .boxes import check_annotations
from .classes import check_categories, check_names
from .coco_file import CocoFile, FileFault, read_coco
from .left import FAULTY, OTHERS, check_left
from .pictures import Loader, compare_pictures, in_threads, look, missing_files, size_fault, spread
from .report import SplitReport
from .resizing import check_sizes
from .resolve import CHEAP, Leaf, follows_file_order
from .truth import keep_truth

BOM = codecs.BOM_UTF8


def read(leaf: Leaf) -> bytes:
    """The annotation file.

    Raises:
        FileFault: it is no file.
    """
    path = Path(leaf.dataset.ann_file)
    if not leaf.node.get('ann_file', leaf.dataset.ann_file):
        raise FileFault(f'{leaf.key}.ann_file is not given')
    if path.is_dir():
        raise FileFault(f'{leaf.key}.ann_file is the folder {path}')
    try:
        return read_regular(path)
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
    if content.startswith(BOM) and not _is_ours(leaf):
        raise FileFault(f"{path} begins with a byte order mark; type='vitdense.CocoDataset' reads it")
    file = read_coco(path, content, not leaf.is_test)
    is_default = report.classes == tuple(type(dataset).METAINFO.get('classes', ()))
    counts = dict(zip(file.names, np.bincount(file.category_of + 1, minlength=len(file.names) + 1)[1:], strict=True))
    report.findings += check_categories(report.classes, counts, path, is_default, follows_file_order(dataset))
    check_annotations(file, any(step.get('with_mask') for step in leaf.steps('LoadAnnotations')))
    if not _is_ours(leaf):
        _check_as_mmdet_reads(file)
    paths, note = _image_paths(leaf, file)
    missing = missing_files(list(paths.values()))
    file.findings += [
        Finding(
            rules.MISSING_IMAGE,
            path,
            f'{missing[path] or "there is no such file"} (image {file.images[i]["id"]!r})',
            True,
            'image',
            i,
        )
        for i, path in paths.items()
        if path in missing
    ]
    file.findings += [*elsewhere(leaf.dataset, paths.values()), *crowded(file)]
    left = np.flatnonzero(file.left_by('image')).tolist()
    names = [f'{paths.get(i, path)} (image {file.images[i]["id"]!r})' for i in left]
    file.findings += check_sizes(leaf.node.get('pipeline') or [], file.wh[left], names, left)
    used, lost = _count(leaf, report, file)
    opened: list[int] = []
    if note or leaf.loader is None:
        report.note = note
    else:
        opened = spread([i for i in used if i in paths], most)
        _look_at(leaf, leaf.loader, report, file, {i: paths[i] for i in opened})
        used, lost = _count(leaf, report, file)
    report.findings += check_left(leaf, report, len(file.images), len(file.annotations), lost)
    report.findings += file.findings if report.trains else keep_truth(file.findings)
    return [*{os.path.dirname(path) for path in paths.values()}, *(paths[i] for i in opened)]


def _is_ours(leaf: Leaf) -> bool:
    """Whether flags, names and ids are read as :mod:`vitdense.datasets.coco_fields` says."""
    from ..coco import CocoDataset  # needs mmdet

    return isinstance(leaf.dataset, CocoDataset)


def _check_as_mmdet_reads(file: CocoFile) -> None:
    """What data sets that read the file with pycocotools take in another way."""
    given = {key: [value if isinstance(value, str) else None for value in file.column(key)] for key in FLAGS}
    some = np.array([any(values) or '' in values for values in zip(*given.values(), strict=True)], bool)
    file.about(
        rules.FLAG_TEXT,
        some & ~file.unreadable,
        lambda i: ', '.join(f'{key} is {texts[i]!r}' for key, texts in given.items() if texts[i] is not None),
        'flag',
    )
    file.findings = [
        replace(finding, fatal=True, leave_out='classes') if finding.kind == rules.SAME_CATEGORY else finding
        for finding in file.findings
    ]
    file.findings += [
        Finding(
            rules.CLASS_NAMES, f'category {one["id"]!r}', f'the name is the number {one["name"]!r}', True, 'classes'
        )
        for one in file.categories
        if not isinstance(one['name'], str)
    ]


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
    file.findings += compare_pictures(pictures)


def _count(leaf: Leaf, report: SplitReport, file: CocoFile) -> tuple[list[int], dict[str, int]]:
    """Put images and class table into ``report``; the indices of the images that are used, and what is no object.

    An image is used unless a finding removes it or the data set's ``filter_cfg`` or ``indices`` leave it out. Crowds
    are no objects, neither are boxes that mmdet leaves out.

    Returns:
        Indices, and the annotations that are no objects by the first reason that holds for them, those of images
        beyond ``indices`` not among them.
    """
    dataset = leaf.dataset
    number = {name: label for label, name in enumerate(report.classes)}
    label_of = np.array([number.get(name, -1) for name in file.names] + [-1])
    label = label_of[file.category_of]
    sound, good_image = file.left_by('annotation'), file.left_by('image')
    sound &= (file.image_of >= 0) & (file.category_of >= 0)
    sound &= good_image[file.image_of] if len(good_image) else False
    used = good_image.copy()
    if dataset.filter_cfg and not dataset.test_mode:
        if dataset.filter_cfg.get('filter_empty_gt', False):
            with_object = np.zeros(len(used), bool)
            with_object[file.image_of[sound & (label >= 0)]] = True
            used &= with_object
        used &= ~(file.wh.min(1, initial=np.inf) < dataset.filter_cfg.get('min_size', 0))
    indices = np.flatnonzero(used)
    chosen = indices[positions(len(indices), dataset._indices)]
    beyond, picked = np.append(used, False), np.zeros(len(used) + 1, bool)  # the last is of annotations without image
    picked[chosen] = True
    beyond &= ~picked
    with np.errstate(invalid='ignore'):
        reasons = {
            OTHERS: (label < 0) & (file.category_of >= 0),
            FAULTY: ~sound,
            'in images that filter_cfg leaves out': ~np.append(used, False)[file.image_of],
            'with ignore': file.ignored,
            'crowd regions': file.crowd,
            'thinner than a pixel': ~(file.boxes[:, 2:].min(1) >= 1),
        }
    lost: dict[str, int] = {}
    left = ~beyond[file.image_of]
    for reason, test in reasons.items():
        lost[reason] = int((left & test).sum())
        left &= ~test
    pairs = np.unique(label[left] * len(used) + file.image_of[left])
    images = np.bincount(pairs // max(len(used), 1), minlength=len(report.classes)).tolist()
    instances = np.bincount(label[left], minlength=len(report.classes)).tolist()
    report.images = len(chosen)
    report.per_class = {name: (images[k], instances[k]) for k, name in enumerate(report.classes)}
    return chosen.tolist(), lost
