"""Evaluators against the data sets whose predictions they are given."""

import filecmp
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import ConfigDict

from vitdense.config.datasets import positions
from vitdense.config.tree import places
from vitdense.registry import bare_type
from vitdense.untrusted.files import read_regular

from .rules import Case, rule
from .run import Run, Split

BY_IMAGE_ID = ('CocoMetric', 'LVISMetric', 'CocoPanopticMetric', 'CocoOccludedSeparatedMetric')
"""Metrics that find the ground truth of a prediction by the id of its image."""

EACH_ALONE = (
    "dict(type='MultiDatasetsEvaluator', metrics=[...], dataset_prefixes=[...]) with a metric for each data set "
    'evaluates each alone'
)

Objects = dict[Any, Counter]


@rule(
    'evaluator of another file',
    looks_at='`ann_file` of the evaluators against that of the data sets: images by id and file name, and the objects '
    'of the classes. The same file by another path and a copy are fine',
    expected='the images and objects of the data set, which the predictions are made for',
    needs='data',
)
def another_file(run: Run) -> Iterator[Case]:
    together = {case.where for case in shared_ids(run)}  # whose objects cannot be compared by the id
    for split in run.splits:
        for key, node, leaves in pairs(split) if split.key not in together else []:
            path = local_file(node.get('ann_file'))
            files = [file_of(split, *leaf) for leaf in leaves]
            known = [file for file in files if file]
            if path is None or not known or len(known) < len(files) or node.get('format_only'):
                continue
            parts = [leaf.get('indices') for _, leaf in leaves]
            own = len(known) == 1 and same_content(path, known[0])
            if own and parts == [None]:
                continue
            fault = _difference(path, known, parts, _classes(split, leaves))
            if fault:
                yield Case(f'{key}.ann_file', f'{path}: {fault}', remedy=_remedy(key, known, leaves[0][0], own))


def _remedy(key: str, files: Sequence[Path], dataset: str, own: bool) -> str:
    if own:
        return f'--cfg-options {dataset}.indices=None evaluates all images'
    if len(files) == 1:
        return f'--cfg-options {key}.ann_file={files[0]}'
    return EACH_ALONE


@rule(
    'image ids that two data sets share',
    looks_at='image ids of the data sets that are evaluated together, with a metric that goes by the id',
    expected='another id for each image',
    remedy=f'number the images anew, or {EACH_ALONE}',
    needs='data',
)
def shared_ids(run: Run) -> Iterator[Case]:
    for split in run.splits:
        for _, node, leaves in pairs(split):
            files = [file for leaf in leaves if (file := file_of(split, *leaf))]
            if len(files) < 2 or not run.is_a(node, *BY_IMAGE_ID):
                continue
            owner: dict = {}
            for file in files:
                read = AnnotationFile.read(file)
                again = [image for image in (read.images if read else ()) if image in owner]
                if read and again:
                    yield Case(
                        split.key, f'{len(again)} of {file} are in {owner[again[0]]} as well, the first is {again[0]!r}'
                    )
                    break
                owner |= dict.fromkeys(read.images if read else (), file)


@rule(
    'data sets that are evaluated alone',
    looks_at='`metrics` and `dataset_prefixes` of MultiDatasetsEvaluator, and the data sets of the ConcatDataset',
    expected='a metric and a prefix for each data set: mmdet fails at the end of the first evaluation',
)
def alone(run: Run) -> Iterator[Case]:
    for split in run.splits:
        node = run.cfg.get(f'{split.name}_evaluator') or {}
        if not split.separate or not split.datasets:
            continue
        numbers = len(split.metrics), len(node.get('dataset_prefixes') or []), len(split.datasets)
        if len(set(numbers)) > 1:
            found = f'{numbers[0]} metrics and {numbers[1]} prefixes for {numbers[2]} data sets'
            yield Case(f'{split.name}_evaluator', found)


@rule(
    'image that is evaluated twice',
    looks_at='wrappers such as RepeatDataset in the loaders of an evaluation, and metrics that go by the image id',
    expected='each image once: the second time, what is found counts as wrong',
    remedy='the data set itself in the place of the wrapper',
)
def repeated(run: Run) -> Iterator[Case]:
    for split in run.splits:
        goes_by_id = any(run.is_a(node, *BY_IMAGE_ID) for _, node in split.metrics)
        for key, node in places(split.loader, split.key).items() if goes_by_id else ():
            if not isinstance(node, dict) or 'dataset' not in node or node.get('times') == 1:
                continue
            if run.is_a(node, 'RepeatDataset', 'ClassBalancedDataset'):
                yield Case(key, bare_type(node))


@rule(
    'panoptic maps of another folder',
    looks_at='`seg_prefix` of CocoPanopticMetric against `data_prefix.seg` of the data set',
    expected='the folder of the data set, or a copy',
    needs='data',
)
def another_folder(run: Run) -> Iterator[Case]:
    for split in run.splits:
        for key, node, leaves in pairs(split):
            folder = node.get('seg_prefix')
            if len(leaves) != 1 or not run.is_a(node, 'CocoPanopticMetric') or not folder or '://' in folder:
                continue
            _, leaf = leaves[0]
            own = Path(leaf.get('data_root') or '', (leaf.get('data_prefix') or {}).get('seg', ''))
            if own.is_dir() and not _same_maps(Path(folder), own):
                yield Case(f'{key}.seg_prefix', str(folder), remedy=f'--cfg-options {key}.seg_prefix={own}')


@rule(
    'metric of other classes',
    looks_at="mmseg's CityscapesMetric, which writes and reads the labels of Cityscapes, and the classes of the data",
    expected="the 19 classes of Cityscapes; type='IoUMetric' takes any",
    needs='data',
)
def cityscapes_metric(run: Run) -> Iterator[Case]:
    for split in run.splits:
        for key, node, leaves in pairs(split):
            classes = _classes(split, leaves)
            if classes and run.is_a(node, 'CityscapesMetric'):
                from mmseg.datasets import CityscapesDataset

                if tuple(classes) != tuple(CityscapesDataset.METAINFO['classes']):
                    yield Case(key, f'{len(classes)} classes, the first is {classes[0]}')


def pairs(split: Split) -> Iterator[tuple[str, ConfigDict, list[tuple[str, ConfigDict]]]]:
    """Metrics of a split with their keys, and the data sets that each is given predictions of."""
    one_each = split.separate and len(split.metrics) == len(split.datasets)
    for i, (key, node) in enumerate(split.metrics):
        yield key, node, [split.datasets[i]] if one_each else split.datasets


def file_of(split: Split, key: str, node: ConfigDict) -> Path | None:
    """Annotation file of a data set; ``None`` if it has none that can be read here."""
    scanned = next((report.ann_file for report in split.reports if report.key == key), '')
    given = node.get('ann_file') or ''
    return local_file(scanned or (given and os.path.join(node.get('data_root') or '', given)))


def local_file(path: object) -> Path | None:
    """``path``, where it is a file of this machine."""
    return Path(path) if isinstance(path, str) and os.path.isfile(path) else None


def same_content(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file, or to equal ones."""
    return os.path.samefile(one, other) or filecmp.cmp(one, other, shallow=False)


@dataclass
class AnnotationFile:
    """Images and objects of a COCO file, panoptic ones included.

    Attributes:
        images: id -> file name without folders, ``None`` where it has none.
        objects: image id -> how often the image has each (category name, box, crowd).
    """

    images: dict[Any, str | None]
    objects: Objects

    @classmethod
    def read(cls, path: Path) -> 'AnnotationFile | None':
        """The content of a file; ``None`` if it is no such file."""
        try:
            data = json.loads(read_regular(path))
            images = {image['id']: _file_name(image) for image in data['images']}
            names = {category['id']: category['name'] for category in data.get('categories') or ()}
            objects: Objects = defaultdict(Counter)
            for ann in data.get('annotations') or ():
                for one in ann.get('segments_info') or [ann]:
                    box = tuple(round(side, 1) for side in one.get('bbox') or ())
                    objects[ann['image_id']][names.get(one['category_id']), box, bool(one.get('iscrowd'))] += 1
        # the scan and the metric say what it lacks
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        return cls(images, objects)

    def of_classes(self, image: Any, classes: Sequence[str]) -> Counter:
        """Objects of an image; those of all classes, if there are no ``classes``."""
        found = self.objects.get(image, Counter())
        return Counter({key: n for key, n in found.items() if not classes or key[0] in classes})


def _difference(path: Path, files: list[Path], parts: Sequence[Any], classes: Sequence[str]) -> str:
    """What an evaluator's file has otherwise than the files of the data; empty if nothing."""
    truth, given = AnnotationFile.read(path), [AnnotationFile.read(file) for file in files]
    sets = [one for one in given if one is not None]
    if truth is None or len(sets) < len(given):
        return ''
    images: dict[Any, str | None] = {}
    objects: Objects = defaultdict(Counter)
    for one, indices in zip(sets, parts, strict=True):
        names = list(one.images)
        images |= {names[i]: one.images[names[i]] for i in positions(len(names), indices)}
        for image, found in one.objects.items():
            objects[image] += found
    name = files[0].name if len(files) == 1 else 'the data sets'
    absent = [image for image in images if image not in truth.images]
    if absent:
        return f'{len(absent)} of the {len(images)} images of {name} are not in it, the first is {absent[0]!r}'
    for image, file in images.items():
        if file and truth.images[image] and truth.images[image] != file:
            return f'image {image!r} is {truth.images[image]} there and {file} in {name}'
    more = len(truth.images) - len(images)
    if more:
        what = f'{name} has not' if parts.count(None) == len(parts) else 'indices of the data set leaves out'
        return f'it has {more} images that {what}, whose objects would count as missed'
    data = AnnotationFile(images, objects)
    other = [i for i in images if data.of_classes(i, classes) != truth.of_classes(i, classes)] if objects else []
    if other:
        return (
            f'{len(other)} of {len(images)} images have other objects there than in {name}, the first is {other[0]!r}'
        )
    return ''


def _classes(split: Split, leaves: Sequence[tuple[str, ConfigDict]]) -> Sequence[str]:
    """Class names of the data, empty where the scan does not know them."""
    keys = {key for key, _ in leaves}
    return next((report.classes for report in split.reports if report.key in keys and report.classes), ())


def _file_name(image: Mapping[str, Any]) -> str | None:
    name = image.get('file_name') or image.get('coco_url')
    return Path(name).name if name else None


def _same_maps(one: Path, other: Path, most: int = 5) -> bool:
    """Whether two folders are one, or the first maps of ``other`` are in ``one`` as well."""
    if not one.is_dir() or os.path.samefile(one, other):
        return one.is_dir()
    names = sorted(path.name for path in other.glob('*.png'))[:most]
    return all((one / name).is_file() and filecmp.cmp(one / name, other / name, False) for name in names)
