"""The scan of a data set of semantic maps."""

import os
from collections import defaultdict

import numpy as np

from vitdense.config.datasets import positions
from vitdense.findings import Finding
from vitdense.names import listed

from . import rules
from .bounds import elsewhere
from .classes import check_names
from .coco_file import FileFault
from .maps import LabelRule, SemanticMap, beyond_8_bits, histogram, loads_8_bits, look_at_map
from .name_lines import line_fault, name_lines
from .pictures import Loader, Picture, compare_pictures, in_threads, look, missing_files, size_fault, spread
from .report import MapFacts, SplitReport
from .resizing import check_sizes
from .resolve import Leaf
from .unread import Neighbours, maps_among_images, unread_files

PATHS = ('img_path', 'seg_map_path')


def read(leaf: Leaf) -> bytes:
    """Names of all images and maps of the data set, which are kept in it as well.

    Raises:
        FileFault: the data set cannot list them.
        ImportError: a package is missing that it needs.
    """
    try:
        leaf.dataset.data_list = leaf.dataset.load_data_list()
    except ImportError:
        raise
    except Exception as error:  # data sets of mmseg assert and raise all kinds of things
        raise FileFault(f'{leaf.type} cannot list its images: {type(error).__name__}: {error}') from None
    lines = (f'{info.get("img_path")}\t{info.get("seg_map_path")}' for info in leaf.dataset.data_list)
    return '\n'.join(lines).encode('utf-8', 'surrogatepass')  # bytes of names that are no UTF-8


def count(leaf: Leaf, report: SplitReport, content: bytes) -> None:
    """The number of images."""
    entries = _entries(leaf)
    report.images = len(entries)
    report.maps = _facts(leaf, entries)


def examine(leaf: Leaf, report: SplitReport, content: bytes, most: int | None) -> list[str]:
    """Fill ``report`` from at most ``most`` images and maps; the files and folders it rests on."""
    report.findings += check_names(leaf.dataset.metainfo.get('classes'), leaf.key)
    entries = _entries(leaf)
    report.images = len(entries)
    report.maps = facts = _facts(leaf, entries)
    facts.unread, folders = unread_files(leaf.dataset)
    if report.findings or not entries:
        report.findings += [] if entries else [_empty(leaf)]
        return folders
    paths = [path for info in entries.values() for path in map(info.get, PATHS) if path]
    report.findings += maps_among_images(leaf.dataset, entries)
    if any(finding.index < 0 for finding in report.findings):
        return folders
    missing = missing_files(paths)
    near = Neighbours().tell
    bad = {finding.index for finding in report.findings}
    lines = name_lines(leaf.dataset.ann_file, len(leaf.dataset.data_list))
    for i, info in entries.items():
        if i in bad:
            continue
        fault = _line_fault(leaf, lines[i]) if lines and info.get('img_path') in missing else ''
        if fault:
            bad.add(i)
            where = f'{leaf.dataset.ann_file}, line {i + 1}'
            report.findings.append(Finding(rules.NAME_LINE, where, fault, True, 'image', i))
            continue
        for kind, key in zip((rules.MISSING_IMAGE, rules.MISSING_MAP), PATHS, strict=True):
            if info.get(key) in missing:
                bad.add(i)
                found = missing[info[key]] or near(info[key])
                report.findings.append(Finding(kind, info[key], found, True, 'image', i))
    report.findings += elsewhere(leaf.dataset, paths)
    opened = {}
    if leaf.loader is None:
        report.note = 'images not opened: the pipeline loads them in another way'
    else:
        opened = {i: entries[i] for i in spread([i for i in entries if i not in bad], most)}
        _look_at(leaf, leaf.loader, report, facts, opened)
    report.images -= len({finding.index for finding in report.fatal if finding.index >= 0})
    folders += {os.path.dirname(path) for path in paths}
    return [*folders, *(info[key] for info in opened.values() for key in PATHS if info.get(key))]


def _line_fault(leaf: Leaf, line: str) -> str:
    return line_fault(line, leaf.dataset.data_prefix.get('img_path') or '', leaf.dataset.img_suffix)


def _entries(leaf: Leaf) -> dict[int, dict]:
    """Image and map of each entry of the data set that is used, by its position in the list of all."""
    everything = leaf.dataset.data_list
    return {i: everything[i] for i in positions(len(everything), leaf.dataset._indices)}


def _facts(leaf: Leaf, entries: dict[int, dict]) -> MapFacts:
    dataset = leaf.dataset
    number = sum(bool(info.get('seg_map_path')) for info in entries.values())
    folders = {key: dataset.data_prefix[key] for key in PATHS if dataset.data_prefix.get(key) is not None}
    return MapFacts(number, bool(dataset.reduce_zero_label), dataset.img_suffix, folders=folders)


def _empty(leaf: Leaf) -> Finding:
    folder, suffix = leaf.dataset.data_prefix.get('img_path') or '.', leaf.dataset.img_suffix
    there = sorted(os.listdir(folder))[:3] if os.path.isdir(folder) else 'no such folder'
    return Finding(rules.EMPTY, leaf.key, f'no image is left: *{suffix} in {folder}, where there is {there}')


def _look_at(leaf: Leaf, loader: Loader, report: SplitReport, facts: MapFacts, entries: dict[int, dict]) -> None:
    """Open images and maps."""
    title = f'{leaf.key}: images'
    images = list(in_threads(lambda info: look(info['img_path'], loader), list(entries.values()), title))
    steps = leaf.steps('LoadAnnotations')
    with_maps = {i: info['seg_map_path'] for i, info in entries.items() if info.get('seg_map_path')}
    maps = {}
    if steps and with_maps:
        of_maps = Loader('unchanged', steps[0].get('imdecode_backend', 'pillow'))
        found = in_threads(lambda path: look_at_map(path, of_maps), list(with_maps.values()), f'{leaf.key}: maps')
        maps = dict(zip(with_maps, found, strict=True))
    rule = LabelRule.of(leaf.dataset, leaf.ignored)
    casts = bool(steps) and loads_8_bits(steps[0].get('type'))
    images_of: dict[int, int] = defaultdict(int)
    values: set[int] = set()
    readable = []
    for (i, info), image in zip(entries.items(), images, strict=True):
        if image.error:
            report.findings.append(Finding(rules.UNREADABLE_IMAGE, image.path, image.error, True, 'image', i))
            continue
        if i in maps:
            report.findings += _map_findings(image, maps[i], info['seg_map_path'], rule, i, casts)
            readable += [] if maps[i].error else [maps[i]]
            values |= set(maps[i].values)
            for label in rule.labels(maps[i].values):
                images_of[label] += 1
        elif fault := size_fault(image, image.loaded_wh, 'nothing'):
            report.findings.append(Finding(fault[0], image.path, fault[1], False))
    report.opened = len(images)
    report.digests = {image.path: image.digest for image in images if image.digest}
    report.findings += compare_pictures(images)
    sized = {i: image for i, image in zip(entries, images, strict=True) if not image.error}
    wh, names = np.array([image.loaded_wh for image in sized.values()]), [image.path for image in sized.values()]
    report.findings += check_sizes(leaf.node.get('pipeline') or [], wh, names, list(sized))
    if readable:
        report.per_class = {name: (images_of[k], 0) for k, name in enumerate(report.classes)}
        report.findings += _absent(leaf, report, images_of, values, len(readable))
        wrong = {*rule.wrong(values), *(beyond_8_bits(values) if casts else [])}
        facts.others = sorted(rule.others(values - wrong))
        if {finding.kind for finding in report.findings} & {rules.NO_CLASS, rules.NOTHING}:
            report.histogram = histogram(readable, rule, report.classes)
            other = LabelRule.of(leaf.dataset, leaf.ignored, not rule.reduce_zero_label)
            if not other.wrong(values) and len(other.labels(values)) > 1:
                report.histogram.append(f'with reduce_zero_label={other.reduce_zero_label} each is a class or ignored')


def _map_findings(
    image: Picture, found: SemanticMap, path: str, rule: LabelRule, index: int, casts: bool
) -> list[Finding]:
    if found.error:
        return [Finding(found.kind, path, found.error, True, 'image', index)]
    findings = []
    fault = size_fault(image, found.wh, path)
    if fault:
        kind, message, fatal = fault
        findings.append(Finding(kind, image.path, message, fatal, 'image' if fatal else '', index))
    deep = beyond_8_bits(found.values) if casts else []
    if deep:
        findings.append(Finding(rules.TOO_DEEP, path, f'found {listed(deep, 8)}', True, 'image', index))
    wrong = [value for value in rule.wrong(found.values) if value not in deep]
    if wrong:
        findings.append(Finding(rules.NO_CLASS, path, f'found {listed(wrong, 8)}; {rule}', True, 'image', index))
    return findings


def _absent(leaf: Leaf, report: SplitReport, images_of: dict[int, int], values: set[int], opened: int) -> list[Finding]:
    """Classes without a pixel: a remark, but masks of 0 and 255 with all of them ignored are a mistake."""
    absent = [name for k, name in enumerate(report.classes) if not images_of[k]]
    if not absent:
        return []
    where = leaf.dataset.data_prefix.get('seg_map_path') or leaf.key
    message = f'no pixel of {absent} in the {opened} maps opened'
    only_ignored = len(absent) >= len(report.classes) - 1 and len(report.classes) > 1 and values & {255}
    if report.trains and (only_ignored or len(absent) == len(report.classes)):
        rule = LabelRule.of(leaf.dataset, leaf.ignored)
        return [Finding(rules.NOTHING, where, f'{message}: the values are {sorted(values)}, and {rule}')]
    if leaf.dataset.reduce_zero_label and 0 in values and report.classes[-1] in absent:
        message += f'; 0 is ignored: if it stands for {report.classes[0]}, reduce_zero_label has to be False'
    return [Finding(rules.NO_PIXELS, where, message, False)]
