"""The scan of any other data set with images and boxes, through what its ``load_data_list`` gives."""

import io
import os
import pickle
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import replace
from functools import wraps
from typing import Any
from xml.etree import ElementTree

import numpy as np

from vitdense.config.datasets import positions
from vitdense.findings import Finding
from vitdense.names import listed

from . import rules
from .boxes import check_boxes
from .classes import check_names, shorten
from .coco_file import CocoFile, FileFault
from .left import check_left
from .masks import check_masks
from .pictures import Loader, compare_pictures, in_threads, look, missing_files, size_fault, spread
from .report import SplitReport
from .resizing import check_sizes
from .resolve import CHEAP, Leaf

REMARKS = (rules.EMPTY_BOX, rules.ABSURD, rules.OUTSIDE, rules.BEYOND)
"""Faults of COCO files that some formats have on purpose: the whole body of a person whose half is seen."""


def is_large(leaf: Leaf) -> bool:
    """Whether listing costs more than counts are worth."""
    path = str(leaf.dataset.ann_file or '')
    return os.path.isfile(path) and os.path.getsize(path) > CHEAP


def read(leaf: Leaf) -> bytes:
    """What the data set lists, which is kept in it as well.

    Raises:
        FileFault: the data set cannot list its images.
    """
    dataset = leaf.dataset
    source: list[Any] = []
    dataset.parse_data_info = _noted(dataset.parse_data_info, source)
    try:
        with redirect_stdout(io.StringIO()):
            dataset.data_list = dataset.load_data_list()
    except Exception as error:  # data sets assert and raise all kinds of things
        about = f' at {str(source[-1])[:200]}' if source else ''
        message = f'{leaf.type} cannot list its images: {type(error).__name__}: {error}{about}'
        raise FileFault(message) from None
    finally:
        del dataset.parse_data_info
    return pickle.dumps(dataset.data_list)


def _noted(parse: Callable, source: list) -> Callable:
    """``parse`` that leaves what it read last in ``source``, until it has read it."""

    @wraps(parse)
    def noted(raw: Any) -> Any:
        source[:] = [raw]
        parsed = parse(raw)
        source.clear()
        return parsed

    return noted


def count(leaf: Leaf, report: SplitReport, content: bytes) -> None:
    """Images and class table."""
    used, _ = _used(leaf)
    _table(report, _as_coco(leaf, report, used), len(used))


def examine(leaf: Leaf, report: SplitReport, content: bytes, most: int | None) -> list[str]:
    """Fill ``report`` from the list of the data set and at most ``most`` images; the files and folders it rests on."""
    everything = leaf.dataset.data_list
    used, filtered = _used(leaf)
    classes = leaf.dataset.metainfo.get('classes')
    report.findings += check_names(classes, leaf.key) if classes else []
    if report.findings:
        return []
    report.findings += _unread_names(report, everything)
    file = _as_coco(leaf, report, used)
    _check(leaf, report, file)
    paths = {i: info['img_path'] for i, info in enumerate(used) if isinstance(info.get('img_path'), str)}
    missing = missing_files(list(paths.values()))
    report.findings += [
        Finding(rules.MISSING_IMAGE, path, 'there is no such file') for path in paths.values() if path in missing
    ]
    sized = np.flatnonzero(np.isfinite(file.wh).all(1)).tolist()
    names = [paths.get(i, leaf.key) for i in sized]
    report.findings += check_sizes(leaf.node.get('pipeline') or [], file.wh[sized], names, sized)
    opened: dict[int, str] = {}
    if leaf.loader is None:
        report.note = 'images not opened: the pipeline loads them in another way'
    else:
        opened = {i: paths[i] for i in spread([i for i, path in paths.items() if path not in missing], most)}
        _look_at(leaf, leaf.loader, report, file, opened)
    lost = {'in images that filter_cfg leaves out': filtered, **_table(report, file, len(used))}
    total = len(file.annotations) + filtered
    if total or not used or report.classes:
        left = check_left(leaf, report, len(everything), total, lost)
        report.findings += left if any('instances' in info for info in everything) or not used else []
    report.findings = [replace(finding, leave_out='', index=-1) for finding in report.findings]
    return [*{os.path.dirname(path) for path in paths.values()}, *opened.values()]


def _used(leaf: Leaf) -> tuple[list[dict], int]:
    """Entries that ``filter_data`` and ``indices`` leave, and the number of objects in those that a filter took."""
    dataset = leaf.dataset
    try:
        filtered = dataset.filter_data()
    except Exception as error:
        raise FileFault(f'{leaf.type}.filter_data: {type(error).__name__}: {error}') from None
    gone = _objects(dataset.data_list) - _objects(filtered)
    return [filtered[i] for i in positions(len(filtered), dataset._indices)], gone


def _objects(entries: Iterable[dict]) -> int:
    return sum(len(info.get('instances') or ()) for info in entries)


def _as_coco(leaf: Leaf, report: SplitReport, used: Sequence[dict]) -> CocoFile:
    """The entries as a COCO file would have them; boxes of other forms than xyxy have none."""
    names = leaf.dataset.metainfo.get('classes') or ()
    report.classes = tuple(map(str, names)) if isinstance(names, list | tuple) else (str(names),)
    images: list[dict] = []
    annotations: list[dict] = []
    for i, info in enumerate(used):
        size = {key: _plain(info.get(key)) for key in ('width', 'height')}
        images.append(dict(id=i, file_name=str(info.get('img_path')), **size))
        for one in info.get('instances') or ():
            new = dict(id=len(annotations), image_id=i, category_id=_plain(one.get('bbox_label')))
            new['ignore'] = bool(one.get('ignore_flag'))
            box = [_plain(side) for side in np.asarray(one.get('bbox', ()), object).ravel()]
            if len(box) == 4 and all(isinstance(side, int | float) for side in box):
                new['bbox'] = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            annotations.append(new | ({'segmentation': one['mask']} if 'mask' in one else {}))
    categories = [dict(id=k, name=f'{k} {name}') for k, name in enumerate(report.classes)]
    file = CocoFile(report.ann_file or leaf.key, images, annotations, categories, False)
    file.findings.clear()
    return file


def _plain(value: Any) -> Any:
    """A number of NumPy as one of Python, anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def _check(leaf: Leaf, report: SplitReport, file: CocoFile) -> None:
    """Labels, boxes and masks."""
    labels = file.column('category_id')
    wrong = np.array([isinstance(label, int) for label in labels], bool) & (file.category_of < 0)
    wrong &= ~file.ignored & bool(report.classes)  # CrowdHuman's ignored ones have the label -1
    if report.classes:
        classes = f'{len(report.classes)} classes, 0 to {len(report.classes) - 1}'
        file.about(rules.UNKNOWN_CATEGORY, wrong, lambda i: f'label {labels[i]}, there are {classes}')
    good = check_boxes(file, ~wrong & ~file.malformed & ~file.ignored)
    if any(step.get('with_mask') for step in leaf.steps('LoadAnnotations')):
        check_masks(file, good & np.isfinite(file.wh[file.image_of]).all(1), True)
    report.findings += [
        replace(finding, fatal=finding.fatal and finding.kind not in REMARKS) for finding in file.findings
    ]


def _table(report: SplitReport, file: CocoFile, images: int) -> dict[str, int]:
    """Put images and class table into ``report``; what is no object, by reason."""
    report.images = images
    left = ~file.ignored & (file.category_of >= 0)
    labels, where = file.category_of[left], file.image_of[left]
    pairs = np.unique(np.stack([labels, where], 1), axis=0)
    with_class = np.bincount(pairs[:, 0], minlength=len(report.classes)).tolist()
    instances = np.bincount(labels, minlength=len(report.classes)).tolist()
    if file.annotations or any(report.classes):
        report.per_class = {name: (with_class[k], instances[k]) for k, name in enumerate(report.classes)}
    return {'with ignore_flag (difficult, crowd or too small)': int(file.ignored.sum())}


def _look_at(leaf: Leaf, loader: Loader, report: SplitReport, file: CocoFile, paths: dict[int, str]) -> None:
    """Open images and compare them with the sizes that the data set gives."""
    pictures = list(in_threads(lambda path: look(path, loader), list(paths.values()), f'{leaf.key}: images'))
    for i, picture in zip(paths, pictures, strict=True):
        wh = file.wh[i]
        if picture.error:
            report.findings.append(Finding(rules.UNREADABLE_IMAGE, picture.path, picture.error))
        elif np.isfinite(wh).all():
            fault = size_fault(picture, tuple(wh.astype(int).tolist()), 'the data set')
            report.findings += [Finding(fault[0], picture.path, fault[1], fault[2])] if fault else []
    report.opened = len(pictures)
    report.digests = {picture.path: picture.digest for picture in pictures if picture.digest}
    report.findings += compare_pictures(pictures)


def _unread_names(report: SplitReport, entries: Sequence[dict]) -> list[Finding]:
    """A remark about names in XML files that are no classes: their objects are not listed."""
    names: Counter[str] = Counter()
    for path in filter(None, (info.get('xml_path') for info in entries)):
        with suppress(OSError, ElementTree.ParseError):
            names.update(name.text or '' for name in ElementTree.parse(path).getroot().iterfind('object/name'))
    extra = {name: number for name, number in names.items() if name not in report.classes}
    if not extra:
        return []
    told = listed([f'{name!r} ({number})' for name, number in extra.items()], 10)
    missing = [name for name in report.classes if name not in names]
    message = f'{told} in the files; {f"without an object: {shorten(missing)}" if missing else "left out"}'
    return [Finding(rules.UNUSED_CATEGORY, report.ann_file, message, False)]
