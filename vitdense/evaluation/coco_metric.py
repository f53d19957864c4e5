"""mmdet's COCO metric with classes by name, a fast evaluation and a report."""

import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmdet.evaluation.metrics import CocoMetric as MMDetCocoMetric
from mmengine.fileio import get_local_path
from mmengine.logging import MMLogger

from vitdense.datasets.coco import QuietCOCO
from vitdense.names import unknown
from vitdense.registry import METRICS

from .coco_eval import STATS, CocoResult, GroundTruth, evaluate, predictions, proposal_recall
from .confusion import confusion_matrix
from .report import Curves, EvaluationReport


@METRICS.register_module()
class CocoMetric(MMDetCocoMetric):
    """``mmdet.CocoMetric`` that finds the categories of the classes by name, prints nothing and leaves a report.

    Arguments, keys and values are as in mmdet's metric; ``use_mp_eval`` and ``sort_categories`` change nothing here.
    Where they part:

    - ``dataset_meta['classes']`` may have another order than the categories of the file. A class without a category
      gets no metric, objects of other categories do not count.
    - Without predictions the values are 0 (-1 where there are no objects), not an empty dict.
    - 'proposal_fast' compares an image with its own predictions, in whatever order they come (and works: mmdet's needs
      equally many in all images).

    Attributes:
        reports: of the last evaluation, one for each of 'bbox' and 'segm' among the metrics, in their order; empty
            before it, with neither, and in other processes than the main one.

    Raises:
        ValueError: the file is no COCO file, or has none of the classes, or no masks for 'segm', which is known before
            the first step; at the evaluation, the file does not have an image, or a label is none of the classes.
        KeyError: an unknown metric or metric item; at the evaluation, 'segm' without masks.
    """

    _coco_api: QuietCOCO | None

    def __init__(self, ann_file: str | None = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(None, *args, **kwargs)
        for item in self.metric_items or ():
            if item not in STATS:
                raise KeyError(unknown('metric item', item, STATS))
        if self.metrics != ['proposal_fast'] and len(self.proposal_nums) < 3:
            raise ValueError(f'proposal_nums: COCO metrics need three numbers, not {self.proposal_nums}')
        self.iou_thrs: np.ndarray = np.atleast_1d(np.asarray(self.iou_thrs, np.float64))
        self.ann_file = ann_file
        if ann_file is not None:
            with get_local_path(ann_file, backend_args=self.backend_args) as path:
                self._coco_api = read_coco(path, ann_file)
        self.reports: list[EvaluationReport] = []

    @property
    def report(self) -> EvaluationReport | None:
        """The first of ``reports``."""
        return self.reports[0] if self.reports else None

    @property
    def dataset_meta(self) -> dict | None:
        """Meta information of the data set; when it is set the classes are looked up in the annotation file."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, meta: dict) -> None:
        self._dataset_meta = meta
        if self._coco_api is not None:
            self._look_up(self._coco_api)

    def _look_up(self, coco: QuietCOCO) -> None:
        self.img_ids = coco.get_img_ids()
        self.cat_ids = coco.get_cat_ids(cat_names=list(self._dataset_meta['classes']))
        self._truths: dict[bool, GroundTruth] = {}
        if 'segm' in self.metrics:
            known = set(self.cat_ids)
            bare = [a['id'] for a in coco.anns.values() if a['category_id'] in known and not a.get('segmentation')]
            if bare:
                raise ValueError(
                    f'metric segm: {len(bare)} annotations of {self.ann_file or "the data set"} have no segmentation, '
                    f"the first is {bare[0]!r}; metric='bbox' needs none"
                )

    def compute_metrics(self, results: list[tuple[dict, dict]]) -> dict[str, float]:
        """Metrics of (ground truth, prediction) of each image, see ``mmdet.CocoMetric``."""
        logger = MMLogger.get_current_instance()
        self.reports = []
        results = [(truth, self._checked(result)) for truth, result in results]
        coco = self._coco_api
        if coco is None:
            coco = self._coco_api = self._from_samples([truth for truth, _ in results])
            self._look_up(coco)
        found = [result for _, result in results]
        if self.outfile_prefix is not None and found:
            self.results2json([self._known(result) for result in found], self.outfile_prefix)
        if self.format_only:
            logger.info(f'results are saved as {self.outfile_prefix}.*.json')
            return OrderedDict()
        missing = len(set(self.img_ids) - {result['img_id'] for result in found})
        if missing:
            logger.warning(
                f'{missing} of {len(self.img_ids)} images of {self.ann_file or "the data set"} were not predicted; '
                'their objects count as missed'
            )
        metrics = OrderedDict()
        for metric in self.metrics:
            metrics.update(self._metric(metric, coco, found))
        return metrics

    def _metric(self, metric: str, coco: QuietCOCO, results: list[dict]) -> dict[str, float]:
        if metric == 'proposal_fast':
            recalls = proposal_recall(coco, results, self.proposal_nums, self.iou_thrs)
            return {f'AR@{number}': recall for number, recall in zip(self.proposal_nums, recalls, strict=True)}
        with_masks = metric == 'segm'
        if with_masks not in self._truths:
            label_of = {category: k for k, category in enumerate(self.cat_ids) if category is not None}
            self._truths[with_masks] = GroundTruth.read(coco, label_of, with_masks)
        truth = self._truths[with_masks]
        found = predictions(results, truth, with_masks)
        iou_type = 'segm' if with_masks else 'bbox'
        result = evaluate(truth, found, iou_type, self.iou_thrs, self.proposal_nums, use_classes=metric != 'proposal')
        stats = result.stats()
        MMLogger.get_current_instance().info(f'{metric}: ' + ', '.join(f'{k} {v:.3f}' for k, v in stats.items()))
        if metric == 'proposal':
            return {item: rounded(stats[item]) for item in self.metric_items or STATS[6:]}
        metrics = {}
        if self.classwise:
            for k, label in enumerate(truth.labels):
                name = self._dataset_meta['classes'][label]
                metrics[f'{name}_precision'] = rounded(result.per_class(k)['AP'])
        metrics.update({f'{metric}_{item}': rounded(stats[item]) for item in self.metric_items or STATS[:6]})
        self.reports.append(make_report(metric, tuple(self._dataset_meta['classes']), result, truth, found))
        return metrics

    def _from_samples(self, truths: list[dict]) -> QuietCOCO:
        """The ground truth that came with the samples, for want of an annotation file."""
        with tempfile.TemporaryDirectory() as folder:
            path = self.gt_to_coco_json(truths, self.outfile_prefix or f'{folder}/results')
            return read_coco(path, path)

    def _checked(self, result: dict) -> dict:
        count, labels = len(self._dataset_meta['classes']), result['labels']
        if len(labels) and not 0 <= labels.min() <= labels.max() < count:
            raise ValueError(
                f'image {result["img_id"]!r}: the model predicts class {labels.max()}, but the data set has {count} '
                'classes; num_classes of the head differs from the classes of the data set'
            )
        return result

    def _known(self, result: dict) -> dict:
        """Without predictions of classes that the file does not have, which cannot be written with its ids."""
        keep = [i for i, label in enumerate(result['labels']) if self.cat_ids[label] is not None]
        kept = {key: result[key][keep] for key in ('bboxes', 'scores', 'labels', 'mask_scores') if key in result}
        if 'masks' in result:
            kept['masks'] = [result['masks'][i] for i in keep]
        return {'img_id': result['img_id'], **kept}


def rounded(value: float) -> float:
    """As mmdet's metric rounds."""
    return float(np.round(value, 3))


def read_coco(path: str, name: str) -> QuietCOCO:
    """Annotation file ``path``, called ``name`` in errors.

    Raises:
        ValueError: no COCO file.
    """
    try:
        coco = QuietCOCO(path)
    except (ValueError, AssertionError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'{name} is no COCO file: {type(error).__name__}: {error}') from error
    missing = [key for key in ('images', 'categories') if key not in coco.dataset]
    if missing:
        raise ValueError(f'{name} is no COCO file: it has no {" and no ".join(missing)}, only {list(coco.dataset)}')
    return coco


def make_report(
    task: str, classes: tuple[str, ...], result: CocoResult, truth: GroundTruth, found: Sequence[dict]
) -> EvaluationReport:
    """The report of a COCO evaluation with classes."""
    instances = np.bincount([o['category_id'] for o in truth.objects if not o['iscrowd']], minlength=len(classes))
    evaluated = {label: result.per_class(k) for k, label in enumerate(truth.labels)}
    undefined = dict.fromkeys(next(iter(evaluated.values())), np.nan)
    per_class = {
        name: {**evaluated.get(label, undefined), 'instances': int(instances[label])}
        for label, name in enumerate(classes)
    }
    return EvaluationReport(
        task=task,
        classes=classes,
        per_class=per_class,
        confusion=confusion_matrix(truth.objects, found, len(classes)),
        curves=_curves(result, truth.labels, len(classes)),
    )


def _curves(result: CocoResult, labels: list[int], num_classes: int) -> Curves | None:
    half = result.at_iou(0.5)
    if half == slice(0):
        return None
    curves = Curves(result.recalls, *np.full((2, num_classes, len(result.recalls)), np.nan))
    defined = (result.precision[half, 0, :, 0, -1] > -1)[0]  # K evaluated classes
    for values, source in ((curves.precision, result.precision), (curves.score, result.score)):
        values[labels] = np.where(defined[:, None], source[half, ..., 0, -1][0].T, np.nan)
    return curves
