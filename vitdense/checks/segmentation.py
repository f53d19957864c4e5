"""Do images, semantic maps, pipelines and metrics of a segmentation fit together?"""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

from mmengine.config import ConfigDict

from vitdense.config.datasets import leaf_datasets
from vitdense.config.tree import places
from vitdense.datasets.scan import MapFacts, SplitReport
from vitdense.datasets.scan.maps import loads_8_bits
from vitdense.names import listed
from vitdense.registry import bare_type

from .rules import Case, rule
from .run import Run, Split

KNOWN = ('mmcv', 'mmdet', 'mmengine', 'mmseg', 'vitdense')
"""Packages whose steps load semantic maps only where their names say so."""


class Maps(NamedTuple):
    """A scanned data set of semantic maps: its split and node in the config, and what the scan found."""

    split: Split
    node: ConfigDict
    report: SplitReport
    facts: MapFacts


def of_maps(run: Run) -> Iterator[Maps]:
    """The scanned data sets of semantic maps."""
    for split in run.splits:
        reports = {report.key: report for report in split.reports}
        for key, node in split.datasets:
            facts = reports[key].maps if key in reports else None
            if facts:
                yield Maps(split, node, reports[key], facts)


def steps(node: ConfigDict) -> list[dict]:
    """Steps of the pipeline of a data set, those inside others included."""
    found = places(node.get('pipeline') or []).values()
    return [step for step in found if isinstance(step, dict) and 'type' in step]


def counts(run: Run, split: Split, *names: str) -> list[tuple[str, ConfigDict]]:
    """The metrics of these types that compare with maps, with their keys."""
    metrics = [(key, node) for key, node in split.metrics if run.is_a(node, *names)]
    return [(key, node) for key, node in metrics if not node.get('format_only')]


def _loads_maps(run: Run, node: ConfigDict) -> bool:
    """Whether a step of the pipeline loads maps, or may do so."""
    names = [bare_type(step) for step in steps(node)]
    kinds = [getattr(run.kind(step), '__module__', '').split('.')[0] for step in steps(node)]
    known = all(package in KNOWN for package in kinds)
    return not known or any('Annotation' in name or name == 'LoadBiomedicalData' for name in names)


@rule(
    'pipeline that loads no semantic maps',
    looks_at='`pipeline` of the data sets of mmseg for training, and for validation and test where a metric needs maps',
    expected='LoadAnnotations, for the loss or the metric',
    remedy="dict(type='LoadAnnotations') in the pipeline; a metric with format_only=True needs no maps",
)
def no_loading(run: Run) -> Iterator[Case]:
    for split in run.splits:
        metrics = counts(run, split, 'IoUMetric')
        for key, node in split.datasets:
            if not run.is_a(node, 'BaseSegDataset') or not steps(node) or _loads_maps(run, node):
                continue
            if split.name == 'train' or metrics:
                reader = 'the loss' if split.name == 'train' else f'{bare_type(metrics[0][1])} ({metrics[0][0]})'
                yield Case(f'{key}.pipeline', f'no step loads maps, which {reader} needs')


@rule(
    'images without semantic maps',
    looks_at='`data_prefix.seg_map_path` of the data sets, their pipelines, and the metrics',
    expected='a map for each image, where a pipeline or a metric reads it',
    remedy='data_prefix=dict(img_path=..., seg_map_path=...); of a test without maps, LoadAnnotations goes from the '
    'pipeline, and the metric gets format_only=True',
    needs='data',
)
def no_maps(run: Run) -> Iterator[Case]:
    for split, node, report, facts in of_maps(run):
        if facts.number or not report.images:
            continue
        readers = ['LoadAnnotations'] * any(bare_type(step) == 'LoadAnnotations' for step in steps(node))
        readers += [bare_type(metric) for _, metric in counts(run, split, 'CityscapesMetric')]
        if readers:
            where = f'{report.key}.data_prefix.seg_map_path'
            yield Case(where, f'not set: {report.images} images have no map, and {readers[0]} reads maps')


@rule(
    'file left out',
    looks_at='files in the folders of images and maps, `img_suffix` and `seg_map_suffix`',
    expected='data sets that read each image and each map',
    remedy='give the files one suffix, capitals count; or a ConcatDataset has one data set a suffix',
    fatal=False,
    needs='data',
)
def left_out(run: Run) -> Iterator[Case]:
    scanned = [_source(node) for _, node, _, _ in of_maps(run)]
    others = [node for name in {'train', 'val', 'test'} - {*run.names} for _, node in leaf_datasets(run.cfg, name)]
    later = [node for node in others if _source(node) not in scanned]
    for key in ('img_path', 'seg_map_path'):
        found = [(report, facts) for _, _, report, facts in of_maps(run) if key in facts.folders]
        read = [_reads(facts, key) for _, facts in found]
        told = {_folder(node, key) for node in later}  # what these leave out is not known
        for report, facts in found:
            folder = os.path.abspath(facts.folders[key])
            files = [path for path in _unread(facts, key) if not any(reads(path) for reads in read)]
            if not files or folder in told:
                continue
            told.add(folder)
            where, what = f'{report.key}.data_prefix.{key}', f'{len(files)} maps without an image'
            if key == 'img_path':
                where, what = f'{report.key}.img_suffix', f'{facts.img_suffix!r} leaves out {len(files)} images'
            names = listed([os.path.relpath(path, folder) for path in files], 3)
            yield Case(where, f'{what} in {facts.folders[key]}: {names}')


def _unread(facts: MapFacts, key: str) -> list[str]:
    return [os.path.abspath(path) for path in facts.unread.get(key, [])]


def _reads(facts: MapFacts, key: str) -> Callable[[str], bool]:
    """Tells whether a data set reads a file."""
    folder, unread = os.path.abspath(facts.folders[key]), set(_unread(facts, key))
    return lambda path: path not in unread and PurePath(path).is_relative_to(folder)


def _source(node: ConfigDict) -> list:
    """What says which files a data set reads."""
    return [node.get(key) for key in ('data_root', 'data_prefix', 'img_suffix', 'seg_map_suffix', 'ann_file')]


def _folder(node: ConfigDict, key: str) -> str:
    return os.path.abspath(os.path.join(node.get('data_root') or '', (node.get('data_prefix') or {}).get(key) or ''))


@rule(
    'segmentation of one class',
    looks_at='`metainfo.classes` of the data sets',
    expected='two classes or more: with one, all pixels that are not ignored are of it, whatever the model says',
    remedy="0 in the maps is the background: classes=('background', 'object') and num_classes=2 in all heads; with "
    'out_channels=1 and use_sigmoid=True in the loss, the head has one channel',
    needs='data',
)
def one_class(run: Run) -> Iterator[Case]:
    for _, _, report, _ in of_maps(run):
        if len(report.classes) == 1 and run.is_a(run.model_cfg, 'BaseSegmentor'):
            yield Case(f'{report.key}.metainfo.classes', f'one class, {report.classes[0]!r}')


@rule(
    'more classes than 8 bits hold',
    looks_at='the number of classes, where LoadAnnotations of mmseg loads the maps',
    expected='255 at most, with reduce_zero_label 254: maps are cast to 8 bits, and 255 is ignored',
    remedy='fewer classes, or a transform of yours in the place of LoadAnnotations',
    needs='data',
)
def many_classes(run: Run) -> Iterator[Case]:
    for _, node, report, facts in of_maps(run):
        most = 255 - facts.reduce_zero_label
        if len(report.classes) > most and any(loads_8_bits(run.kind(step) or bare_type(step)) for step in steps(node)):
            yield Case(f'{report.key}.metainfo.classes', f'{len(report.classes)} classes')


@rule(
    'reduce_zero_label of the pipeline',
    looks_at='`reduce_zero_label` of LoadAnnotations and of the data set',
    expected='the same in both: mmseg fails at the first image',
    remedy='leave it out of the pipeline; the data set has reduce_zero_label=True if 0 is no class, else False',
    needs='data',
)
def reduced_twice(run: Run) -> Iterator[Case]:
    for _, node, report, facts in of_maps(run):
        for step in steps(node):
            said = step.get('reduce_zero_label')
            if said is not None and bool(said) != facts.reduce_zero_label:
                found = f'{bare_type(step)}(reduce_zero_label={said}), and the data set has {facts.reduce_zero_label}'
                yield Case(f'{report.key}.pipeline', found)


@rule(
    'reduce_zero_label of another split',
    looks_at='`reduce_zero_label` of the data sets for training and of the others',
    expected='the same, unless the maps are of two kinds',
    fatal=False,
    needs='data',
)
def reduced_here_only(run: Run) -> Iterator[Case]:
    found = [(report, facts.reduce_zero_label) for _, _, report, facts in of_maps(run)]
    for report, reduced in found[1:]:
        first, before = found[0]
        if reduced != before and report.classes == first.classes:
            yield Case(f'{report.key}.reduce_zero_label', f'{reduced}, and {before} in {first.key}')


@rule(
    'ignored label that the metric counts',
    looks_at='labels in the opened maps of validation and test, `ignore_index` of data set and metric',
    expected='what the maps have where there is no class; the metric counts these pixels as mistakes',
    needs='data',
)
def metric_counts(run: Run) -> Iterator[Case]:
    for split, node, report, facts in of_maps(run):
        labels = ignored_labels(node, report.classes, facts)
        for key, metric in counts(run, split, 'IoUMetric') if split.name != 'train' else []:
            ignored = metric.get('ignore_index', 255)
            wrong = sorted(labels - {ignored})
            if wrong:
                remedy = f'--cfg-options {key}.ignore_index={wrong[0]}' if len(labels) == 1 else ONE_LABEL
                yield Case(
                    f'{key}.ignore_index', f'{ignored}, where {report.key} ignores {listed(wrong, 5)}', '', remedy
                )


@rule(
    'semantic maps that are resized for an evaluation',
    looks_at='the map of the first image of validation and test, and IoUMetric',
    expected='LoadAnnotations behind Resize: predictions have the size of the image in its file',
    remedy="dict(type='LoadAnnotations') behind all steps that change the size",
    needs='model',
)
def resized_maps(run: Run) -> Iterator[Case]:
    for split in run.splits:
        sample: Any = run.samples.get(split.name)
        truth: Any = getattr(sample, 'gt_sem_seg', None)
        original: Any = getattr(sample, 'ori_shape', None)
        if truth is None or original is None or not counts(run, split, 'IoUMetric'):
            continue
        found, wanted = (' x '.join(map(str, reversed(hw))) for hw in (truth.data.shape[-2:], original[:2]))
        if found != wanted:
            yield Case(f'{split.key}.dataset.pipeline', f'the first map is of {found}, its image of {wanted}')


ONE_LABEL = 'losses and metrics of mmseg ignore one label: give the pixels without a class the same value in all maps'


def ignored_labels(node: ConfigDict, classes: Sequence[str], facts: MapFacts) -> set[int]:
    """Labels of pixels without a class: those seen in the maps, and what the config of the data set says."""
    said = node.get('ignore_index')
    if not isinstance(said, int) or said in (0xFF, *range(len(classes))):
        return set(facts.others)
    return {*facts.others, said & 0xFF}
