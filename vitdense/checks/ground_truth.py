"""Metrics that take the ground truth from the predicted samples: do the pipelines hand it on, and as it was?"""

from collections.abc import Iterator

from mmengine.config import ConfigDict

from .evaluators import pairs
from .rules import Case, rule
from .run import Run
from .segmentation import steps

FROM_SAMPLES = ('OpenImagesMetric', 'CocoMetric')
"""Metrics that read 'instances' of a sample; CocoMetric and those that derive from it only without an `ann_file`."""


def _of_pipelines(run: Run, *names: str) -> Iterator[tuple[str, ConfigDict, str, list[dict]]]:
    """Metrics of these types that compare, with each pipeline whose samples they are given: keys, node and steps."""
    for split in run.splits:
        if split.name == 'train':
            continue
        for key, node, leaves in pairs(split):
            if run.is_a(node, *names) and not node.get('format_only'):
                yield from ((key, node, f'{leaf}.pipeline', steps(one)) for leaf, one in leaves)


@rule(
    'metric without its ground truth',
    looks_at='OpenImagesMetric, VOCMetric, CocoMetric and LVISMetric without `ann_file`, and the pipelines of the data',
    expected='a pipeline that hands on what the metric compares with',
)
def no_truth(run: Run) -> Iterator[Case]:
    for key, node, where, pipeline in _of_pipelines(run, *FROM_SAMPLES):
        kind = getattr(run.kind(node), '__name__', '')
        packs = [step for step in pipeline if run.is_a(step, 'PackDetInputs')]
        if node.get('ann_file') or not packs or any('instances' in step.get('meta_keys', ()) for step in packs):
            continue
        more = '' if kind == 'OpenImagesMetric' else f', or {key}.ann_file'
        remedy = f"meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'instances'){more}"
        yield Case(where, f"meta_keys of PackDetInputs have no 'instances', which {kind} ({key}) reads", remedy=remedy)
    for key, _, where, pipeline in _of_pipelines(run, 'VOCMetric'):
        packs = [step for step in pipeline if run.is_a(step, 'PackDetInputs')]
        if packs and not any(run.is_a(step, 'LoadAnnotations') for step in pipeline):
            remedy = "dict(type='LoadAnnotations', with_bbox=True) after the resizing"
            yield Case(where, f'no LoadAnnotations, whose boxes VOCMetric ({key}) reads', remedy=remedy)


@rule(
    'ground truth that is resized',
    looks_at='the order of LoadAnnotations and Resize in the pipelines whose boxes VOCMetric reads',
    expected='LoadAnnotations after Resize: predictions are scaled back to the image, boxes of the pipeline are not',
    remedy='move LoadAnnotations behind the resizing',
)
def resized_truth(run: Run) -> Iterator[Case]:
    for key, _, where, pipeline in _of_pipelines(run, 'VOCMetric'):
        loads = [i for i, step in enumerate(pipeline) if run.is_a(step, 'LoadAnnotations')]
        after = [step for step in pipeline[loads[0] :] if run.is_a(step, 'Resize', 'FixScaleResize')] if loads else []
        if after:
            yield Case(where, f'LoadAnnotations before Resize, and VOCMetric ({key}) reads its boxes')


@rule(
    'metric of another data set',
    looks_at='OpenImagesMetric, which asks the data set for its tree of classes, and the data sets of its split',
    expected='OpenImagesDataset',
)
def open_images(run: Run) -> Iterator[Case]:
    for split in run.splits:
        for key, node, leaves in pairs(split):
            for where, leaf in leaves if run.is_a(node, 'OpenImagesMetric') else ():
                kind = run.kind(leaf)  # those of others may bring a tree along
                is_known = kind is not None and kind.__module__.split('.')[0] in ('mmdet', 'vitdense')
                if kind is not None and is_known and not run.is_a(leaf, 'OpenImagesDataset', 'DSDLDetDataset'):
                    yield Case(key, f'OpenImagesMetric, and {where} is a {kind.__name__}')
