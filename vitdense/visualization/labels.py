"""Labels and predictions of one image, taken out of the data samples of mmdet and mmseg."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

IGNORED = 255
INSTANCE_OFFSET = 1000
"""mmdet numbers the segments of a panoptic map class + 1000 * object."""


@dataclass(frozen=True, eq=False)
class Labels:
    """What can be drawn on one image; None is what is not there.

    Attributes:
        boxes: (G, 4), xyxy in pixels of the image.
        classes: (G,), class numbers of the boxes or masks.
        scores: (G,), for predictions.
        masks: (G, H, W), boolean.
        semantic: (H, W), class numbers; 255 is ignored.
    """

    boxes: Tensor | None = None
    classes: Tensor | None = None
    scores: Tensor | None = None
    masks: Tensor | None = None
    semantic: Tensor | None = None

    def present(self) -> dict[int, int]:
        """Class numbers that occur, and how often: objects, or pixels of a semantic map."""
        found = self.classes if self.semantic is None else self.semantic[self.semantic != IGNORED]
        if found is None:
            return {}
        numbers, counts = found.unique(return_counts=True)
        return dict(zip(numbers.tolist(), counts.tolist(), strict=True))

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) is not None for field in fields(self))


def true_labels(sample: Any) -> Labels:
    """Classes of ``gt_panoptic_seg``, else ``gt_instances``, else ``gt_sem_seg`` of a data sample."""
    return _from_sample(sample, 'gt', 0)


def predicted_labels(sample: Any, score_thr: float = 0.0) -> Labels:
    """Classes of ``pred_panoptic_seg``, else ``pred_instances`` with a score of at least ``score_thr``, else
    ``pred_sem_seg``, of a data sample.
    """
    return _from_sample(sample, 'pred', score_thr)


def loaded_labels(results: Mapping) -> Labels:
    """Labels among the results of the loading transforms of a pipeline; boxes that training ignores are left out."""
    if 'gt_bboxes' in results:
        keep = np.flatnonzero(~np.asarray(results['gt_ignore_flags'], bool))
        objects = (results.get(key) for key in ('gt_bboxes', 'gt_bboxes_labels', 'gt_masks'))
        return _instances(*(None if value is None else value[keep] for value in objects))
    return Labels(semantic=_semantic(results['gt_seg_map'])) if 'gt_seg_map' in results else Labels()


def _from_sample(sample: Any, kind: str, score_thr: float) -> Labels:
    instances, semantic = sample.get(f'{kind}_instances'), sample.get(f'{kind}_sem_seg')
    panoptic = sample.get(f'{kind}_panoptic_seg')
    if panoptic is not None:
        return Labels(semantic=_semantic(panoptic.sem_seg) % INSTANCE_OFFSET)
    if instances is not None and 'labels' in instances:
        if 'scores' in instances:
            instances = instances[instances.scores >= score_thr]
        boxes, masks, scores = (instances.get(key) for key in ('bboxes', 'masks', 'scores'))
        return _instances(boxes, instances.labels, masks, scores)
    if semantic is not None:
        return Labels(semantic=_semantic(semantic.get('data', semantic.get('sem_seg'))))
    return Labels()


def _instances(boxes: Any, classes: Any, masks: Any, scores: Any = None) -> Labels:
    is_mmdet = hasattr(masks, 'to_tensor')
    return Labels(
        None if boxes is None else _tensor(getattr(boxes, 'tensor', boxes)).float().reshape(-1, 4),
        _tensor(classes).long(),
        None if scores is None else _tensor(scores).float(),
        None if masks is None else (masks.to_tensor(torch.bool, 'cpu') if is_mmdet else _tensor(masks)) > 0,
    )


def _semantic(data: Any) -> Tensor:
    data = _tensor(data).long()
    return data.reshape(data.shape[-2:])


def _tensor(value: Any) -> Tensor:
    return value.detach().cpu() if isinstance(value, Tensor) else torch.from_numpy(np.ascontiguousarray(value))
