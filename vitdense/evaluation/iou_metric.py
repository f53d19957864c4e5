"""mmseg's IoU metric with a confusion matrix and a report."""

from typing import Any

import numpy as np
import torch
from mmengine.logging import MMLogger
from mmseg.evaluation import IoUMetric as MMSegIoUMetric

from vitdense.names import unknown
from vitdense.registry import METRICS

from .report import EvaluationReport

KNOWN = ('mIoU', 'mDice', 'mFscore')


@METRICS.register_module()
class IoUMetric(MMSegIoUMetric):
    """``mmseg.IoUMetric`` that counts in integers and leaves a report.

    Arguments, keys and values are as in mmseg's metric. Counts stay exact above 2**24 pixels, where its float32
    sums begin to round, and do not need ``torch.histc``, which deterministic runs on GPUs refuse.

    Attributes:
        report: of the last evaluation, in percent; ``None`` before it and in other processes than the main one.

    Raises:
        ValueError: ``iou_metrics`` has another name than mIoU, mDice and mFscore.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for metric in [self.metrics] if isinstance(self.metrics, str) else self.metrics:
            if metric not in KNOWN:
                raise ValueError(unknown('iou_metrics', str(metric), KNOWN))
        self.report: EvaluationReport | None = None

    @staticmethod
    def intersect_and_union(
        pred_label: torch.Tensor, label: torch.Tensor, num_classes: int, ignore_index: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Confusion matrix of an image, only its entries above 0: a few kilobytes for 150 classes.

        Args:
            pred_label: (H, W)
            label: (H, W)
            num_classes: K; other values than 0 to K - 1 count as one more class, K.
            ignore_index: label of the pixels to leave out.

        Returns:
            Flat indices into the (K + 1, K + 1) matrix (rows label, columns pred_label) and pixels at each.
        """
        inside = label != ignore_index
        sides = (side[inside].long() for side in (label, pred_label))
        truth, found = (torch.where((side < 0) | (side >= num_classes), num_classes, side) for side in sides)
        counts = torch.bincount(truth * (num_classes + 1) + found, minlength=(num_classes + 1) ** 2).cpu().numpy()
        filled = np.flatnonzero(counts)
        return filled.astype(np.int32), counts[filled]

    def compute_metrics(self, results: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
        """Metrics of all images, see ``mmseg.IoUMetric``."""
        self.report = None
        if self.format_only:
            return super().compute_metrics(results)
        classes = tuple(self.dataset_meta['classes'])
        confusion = np.zeros((len(classes) + 1, len(classes) + 1), np.int64)
        for filled, counts in results:
            confusion.reshape(-1)[filled] += counts
        outside = int(confusion[-1].sum())
        if outside:
            MMLogger.get_current_instance().warning(
                f'{outside} pixels have labels outside the {len(classes)} classes that are not {self.ignore_index}'
            )
        intersect = np.diag(confusion)[:-1].copy()
        found, truth = confusion.sum(0)[:-1], confusion.sum(1)[:-1]
        areas = tuple(torch.as_tensor(a).float() for a in (intersect, found + truth - intersect, found, truth))
        with np.errstate(invalid='ignore'):
            metrics = super().compute_metrics([areas])
        values = self.total_area_to_metrics(*areas, self.metrics, self.nan_to_num, self.beta)
        per_class = {
            name: {**{key: 100 * float(v[k]) for key, v in values.items() if key != 'aAcc'}, 'pixels': int(truth[k])}
            for k, name in enumerate(classes)
        }
        self.report = EvaluationReport('semantic', classes, per_class, confusion[:-1, :-1])
        return metrics
