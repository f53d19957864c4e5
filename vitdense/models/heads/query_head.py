"""What heads share that predict a set of objects with queries (DETR, Deformable DETR, YOLOS)."""

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor

from vitdense.models.set_prediction import HungarianMatcher, Predictions, SetCriterion, Targets, select, xyxy_to_cxcywh
from vitdense.names import unknown


class QueryHead(BaseModule):
    """A head for mmdet's ``SingleStageDetector``: images without objects are trained on, and nothing is suppressed.

    A subclass computes predictions in :meth:`forward`; matching, losses and selection happen here.

    Args:
        num_classes: number of classes K.
        softmax: whether logits go through a softmax, with no object as another, last class, or through sigmoids.
        cost_class: weight of the class in matching.
        cost_l1: weight of the L1 distance of boxes in matching.
        cost_giou: weight of the generalised IoU in matching.
        loss_class: weight of the class loss.
        loss_l1: weight of the L1 loss of boxes.
        loss_giou: weight of the generalised IoU loss.
        no_object_weight: weight of queries without object in the class loss, with a softmax.
        aux_loss: whether decoder layers before the last are trained on, too.
        train_cfg: accepted for the detector's sake; there is nothing to set.
        test_cfg: ``max_per_img``, the number of detections (default 100).
        init_cfg: mmengine's initialisation config.

    Raises:
        TypeError: unknown settings in ``train_cfg`` or ``test_cfg``.
    """

    def __init__(
        self,
        num_classes: int,
        softmax: bool,
        *,
        cost_class: float,
        cost_l1: float = 5.0,
        cost_giou: float = 2.0,
        loss_class: float,
        loss_l1: float = 5.0,
        loss_giou: float = 2.0,
        no_object_weight: float = 0.1,
        aux_loss: bool = True,
        train_cfg: Mapping[str, Any] | None = None,
        test_cfg: Mapping[str, Any] | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.num_classes = num_classes
        self.softmax = softmax
        self.aux_loss = aux_loss
        self._has_warned = False
        matcher = HungarianMatcher(cost_class, cost_l1, cost_giou, softmax)
        self.criterion = SetCriterion(matcher, loss_class, loss_l1, loss_giou, no_object_weight)
        for name, settings, valid in (('train_cfg', train_cfg, []), ('test_cfg', test_cfg, ['max_per_img'])):
            for key in settings or {}:
                if key not in valid:
                    raise TypeError(f'{type(self).__name__}: ' + unknown(f'setting of {name}', key, valid))
        self.max_per_img = (test_cfg or {}).get('max_per_img', 100)

    @property
    def num_logits(self) -> int:
        """Number of class logits of a query."""
        return self.num_classes + self.softmax

    @abstractmethod
    def forward(self, feats: Sequence[Tensor], img_metas: Sequence[dict] | None = None) -> Predictions:
        """Maps (B, C, H, W) to :class:`Predictions`.

        Args:
            feats: maps of the neck or the backbone.
            img_metas: ``img_shape`` and ``batch_input_shape`` of each image, for its padding; without, there is none.
        """

    def loss(self, feats: Sequence[Tensor], batch_data_samples: Sequence) -> dict[str, Tensor]:
        """Losses of a batch of mmdet's data samples: ``loss_cls``, ``loss_bbox``, ``loss_iou``, ``d0.loss_cls``, ..."""
        return self.losses(self(feats, [sample.metainfo for sample in batch_data_samples]), batch_data_samples)

    def losses(self, predictions: Predictions, batch_data_samples: Sequence) -> dict[str, Tensor]:
        """Losses of ``predictions`` for these data samples."""
        if not self.aux_loss:
            predictions = Predictions(*(x[-1:] for x in predictions))
        return self.criterion(predictions, self.targets(batch_data_samples, predictions.logits.shape[2]))

    def targets(self, batch_data_samples: Sequence, num_queries: int) -> Targets:
        """Ground truths of mmdet's data samples, boxes divided by ``img_shape``."""
        labels, boxes, names = [], [], []
        for sample in batch_data_samples:
            truth, (height, width) = sample.gt_instances, sample.img_shape[:2]
            corners = getattr(truth.bboxes, 'tensor', truth.bboxes)
            boxes.append(xyxy_to_cxcywh(corners / corners.new_tensor([width, height, width, height])))
            labels.append(truth.labels)
            names.append(f'image {sample.get("img_id")} ({sample.get("img_path")})')
            if len(truth) > num_queries:
                self._warn_of_crowd(names[-1], len(truth), num_queries)
        return Targets.collate(labels, boxes, names)

    def predict(
        self, feats: Sequence[Tensor], batch_data_samples: Sequence, rescale: bool = False
    ) -> list[InstanceData]:
        """Detections of each image: ``scores``, ``labels`` and ``bboxes`` in xyxy.

        Boxes are cut off at the image. They are in pixels of ``img_shape``, with ``rescale`` of the image as it was
        before ``scale_factor``.
        """
        metas = [sample.metainfo for sample in batch_data_samples]
        logits, boxes = (x[-1] for x in self(feats, metas))
        found = select(logits, boxes, self.softmax, self.max_per_img)
        results = []
        for meta, scores, labels, corners in zip(metas, found.scores, found.labels, found.boxes, strict=True):
            height, width = meta['img_shape'][:2]
            corners = corners.clamp(0, 1) * corners.new_tensor([width, height, width, height])
            if rescale:
                corners = corners / corners.new_tensor(meta['scale_factor']).repeat(2)
            results.append(InstanceData(scores=scores, labels=labels, bboxes=corners))
        return results

    def _warn_of_crowd(self, name: str, objects: int, queries: int) -> None:
        if self._has_warned:
            return
        self._has_warned = True
        print_log(
            f'{name} has {objects} objects, the model has {queries} queries: of such images only those objects are '
            'learned that fit best, and no more can be detected. Raise num_queries',
            'current',
            logging.WARNING,
        )


def image_sizes(hw: tuple[int, int], img_metas: Sequence[dict] | None) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Height and width of each image, or once for all of them, and of their batch; ``hw`` where nothing is known."""
    if img_metas is None:
        return [hw], hw
    return [tuple(meta['img_shape'][:2]) for meta in img_metas], tuple(img_metas[0]['batch_input_shape'])
