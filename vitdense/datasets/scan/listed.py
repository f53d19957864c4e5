"""The scan of any other data set with images and boxes, through what its ``load_data_list`` gives."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vitdense.config.datasets import positions
from vitdense.findings import Finding

from . import rules
from .bounds import crowded, elsewhere
from .boxes import check_boxes
from .classes import check_names, shorten
from .coco_file import CocoFile, FileFault
from .left import check_left
from .listing import Broken, Listing, list_entries
from .masks import check_masks
from .pictures import Loader, compare_pictures, in_threads, look, missing_files, size_fault, spread
from .report import SplitReport
from .resizing import check_sizes
from .resolve import CHEAP, Leaf
from .unread import Neighbours

REMARKS = (rules.EMPTY_BOX, rules.ABSURD, rules.OUTSIDE, rules.BEYOND)
"""Faults of COCO files that some formats have on purpose: the whole body of a person whose half is seen."""


def is_large(leaf: Leaf) -> bool:
    """Whether listing costs more than counts are worth."""
    path = str(leaf.dataset.ann_file or '')
    return os.path.isfile(path) and os.path.getsize(path) > CHEAP


def read(leaf: Leaf) -> bytes:
    """What the data set lists, which is kept in ``leaf`` and in the data set as well.

    Raises:
        FileFault: the data set cannot list its images.
        ImportError: a package is missing that it needs.
    """
    leaf.listing = list_entries(leaf)
    return leaf.listing.content()


def count(leaf: Leaf, report: SplitReport, content: bytes) -> None:
    """Images and class table."""
    used, _ = _used(leaf)
    _table(report, _as_coco(leaf, report, used), len(used))


def examine(leaf: Leaf, report: SplitReport, content: bytes, most: int | None) -> list[str]:
    """Fill ``report`` from the list of the data set and at most ``most`` images; the files and folders it rests on."""
    listing = leaf.listing
    everything = listing.entries
    used, filtered = _used(leaf)
    report.findings += _check_classes(leaf, report.classes)
    report.findings += [_broken(one) for one in listing.broken]
    report.findings += _no_size(listing)
    if any(finding.kind in (rules.CLASS_NAMES, rules.CLASS_ORDER) for finding in report.fatal):
        return []
    file = _as_coco(leaf, report, used)
    report.names = dict(listing.names)
    places = [listing.places.get(id(info), -1) for info in used]
    _check(leaf, report, file, places)
    paths = {i: info['img_path'] for i, info in enumerate(used) if isinstance(info.get('img_path'), str)}
    missing, near = missing_files(list(paths.values())), Neighbours().tell
    report.findings += [
        Finding(rules.MISSING_IMAGE, path, missing[path] or near(path), index=places[i])
        for i, path in paths.items()
        if path in missing
    ]
    report.findings += elsewhere(leaf.dataset, paths.values())
    report.findings += [replace(one, index=places[one.index]) for one in crowded(file)]
    sized = np.flatnonzero(np.isfinite(file.wh).all(1)).tolist()
    names = [paths.get(i, leaf.key) for i in sized]
    report.findings += check_sizes(leaf.node.get('pipeline') or [], file.wh[sized], names, [places[i] for i in sized])
    opened: dict[int, str] = {}
    if leaf.loader is None:
        report.note = 'images not opened: the pipeline loads them in another way'
    else:
        opened = {i: paths[i] for i in spread([i for i, path in paths.items() if path not in missing], most)}
        _look_at(leaf, leaf.loader, report, file, opened, places)
    lost = {'in images that filter_cfg leaves out': filtered, **_table(report, file, len(used))}
    total = len(file.annotations) + filtered
    if total or not used or report.classes:
        left = check_left(leaf, report, len(everything), total, lost)
        report.findings += left if any('instances' in info for info in everything) or not used else []
    report.findings = [_settle(finding, report.trains and bool(listing.lines)) for finding in report.findings]
    gone = {finding.index for finding in report.findings if finding.leave_out == 'image'}
    if gone & {*places}:
        kept = [info for place, info in zip(places, used, strict=True) if place not in gone]
        _table(report, _as_coco(leaf, report, kept), len(kept))
    return [*{os.path.dirname(path) for path in paths.values()}, *opened.values()]


def _settle(finding: Finding, mends: bool) -> Finding:
    """A finding with what ``--lenient`` does: leave out the line of the image in the list of names of a training."""
    if mends and finding.fatal and finding.index >= 0:
        return replace(finding, leave_out='image')
    return replace(finding, leave_out='', index=-1)


def _broken(one: Broken) -> Finding:
    return Finding(rules.NAME_LINE if one.is_line else rules.ENTRY, one.where, one.found, index=one.place)


def _no_size(listing: Listing) -> list[Finding]:
    """Sizes of nothing, with which filters leave images out without a word."""
    findings = []
    for info in listing.entries:
        size = [_plain(info.get(key)) for key in ('width', 'height')]
        if all(isinstance(side, int | float) for side in size) and min(size) <= 0:
            where = str(info.get('xml_path') or info.get('img_path'))
            message = f'the size of the image is {size[0]} x {size[1]}'
            findings.append(Finding(rules.ENTRY, where, message, index=listing.places[id(info)]))
    return findings


def _check_classes(leaf: Leaf, before: Sequence[str]) -> list[Finding]:
    """Class names of the config against those that the data set takes, and labels that follow a file.

    Args:
        before: names before the data set has read its files.
    """
    classes = leaf.dataset.metainfo.get('classes')
    found = check_names(classes, leaf.key) if classes else []
    if found or not classes:
        return found
    given = (leaf.node.get('metainfo') or {}).get('classes')
    if given and before and tuple(classes) != tuple(before):
        message = f'metainfo.classes is {shorten(before)}, but {leaf.type} takes the {len(classes)} names of its files'
        remedy = 'leave classes out of metainfo'
        return [Finding(rules.CLASS_NAMES, leaf.key, f'{message}, {shorten(classes)}', remedy=remedy)]
    order = leaf.listing.categories
    if not order or tuple(order) == tuple(classes):
        return []
    same = [a == b for a, b in zip(classes, order, strict=False)]
    label = same.index(False) if False in same else len(same)
    said, meant = (repr(one[label]) if label < len(one) else 'none' for one in (classes, order))
    message = f'{len(classes)} classes and {len(order)} categories; label {label} is {said}, in the file {meant}'
    remedy = f'metainfo=dict(classes=(...)) with all {len(order)} names of the file in their order'
    fatal = bool(given) or len(order) != len(classes)  # the release may spell a few of its own names in another way
    return [Finding(rules.CLASS_ORDER, leaf.dataset.ann_file, message, fatal, remedy=remedy)]


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


def _check(leaf: Leaf, report: SplitReport, file: CocoFile, places: Sequence[int]) -> None:
    """Labels, boxes and masks; ``places`` of the images in the list."""
    labels = file.column('category_id')
    wrong = np.array([isinstance(label, int) for label in labels], bool) & (file.category_of < 0)
    wrong &= ~file.ignored & bool(report.classes)  # CrowdHuman's ignored ones have the label -1
    if report.classes:
        classes = f'{len(report.classes)} classes, 0 to {len(report.classes) - 1}'
        file.about(rules.UNKNOWN_CATEGORY, wrong, lambda i: f'label {labels[i]}, there are {classes}')
    good = check_boxes(file, ~wrong & ~file.malformed & ~file.ignored)
    if any(step.get('with_mask') for step in leaf.steps('LoadAnnotations')):
        check_masks(file, good & np.isfinite(file.wh[file.image_of]).all(1), True)
    place = [places[image] for image in file.image_of.tolist()]
    report.findings += [
        replace(finding, fatal=finding.fatal and finding.kind not in REMARKS, index=place[finding.index])
        for finding in file.findings
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


def _look_at(
    leaf: Leaf, loader: Loader, report: SplitReport, file: CocoFile, paths: dict[int, str], places: Sequence[int]
) -> None:
    """Open images and compare them with the sizes that the data set gives."""
    pictures = list(in_threads(lambda path: look(path, loader), list(paths.values()), f'{leaf.key}: images'))
    for i, picture in zip(paths, pictures, strict=True):
        wh = file.wh[i]
        if picture.error:
            report.findings.append(Finding(rules.UNREADABLE_IMAGE, picture.path, picture.error, index=places[i]))
        elif np.isfinite(wh).all():
            fault = size_fault(picture, tuple(wh.astype(int).tolist()), 'the data set')
            report.findings += [Finding(fault[0], picture.path, *fault[1:], index=places[i])] if fault else []
    report.opened = len(pictures)
    report.digests = {picture.path: picture.digest for picture in pictures if picture.digest}
    report.findings += compare_pictures(pictures)
