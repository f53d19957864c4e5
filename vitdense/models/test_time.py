"""Merging of what a detector predicts for several views of an image."""

import torch
from mmcv.ops import batched_nms
from mmdet.models.test_time_augs import DetTTAModel as MMDetDetTTAModel
from mmdet.structures import DetDataSample
from torch import Tensor

from vitdense.registry import MODELS


@MODELS.register_module()
class DetTTAModel(MMDetDetTTAModel):
    """``mmdet.DetTTAModel`` that keeps the masks of the boxes that are kept, where mmdet's raises an error.

    Arguments are those of mmdet's model. The boxes are merged by it, so that they are the same with and without masks.
    """

    def _merge_single_sample(self, data_samples: list[DetDataSample]) -> DetDataSample:
        instances = [sample.pred_instances for sample in data_samples]
        if 'masks' not in instances[0]:
            return super()._merge_single_sample(data_samples)
        views = [_upright(sample) for sample in data_samples]
        metas = [sample.metainfo for sample in data_samples]
        boxes, scores = self.merge_aug_bboxes(
            [one.bboxes for one in instances], [one.scores for one in instances], metas
        )
        labels = torch.cat([one.labels for one in instances])
        for one in instances:
            del one.masks
        merged = super()._merge_single_sample(data_samples)
        masks = torch.cat(views)
        if len(boxes):
            kept = batched_nms(boxes, scores, labels, self.tta_cfg.nms)[1][: self.tta_cfg.max_per_img]
            masks = masks[kept]
        merged.pred_instances.masks = masks
        return merged


def _upright(sample: DetDataSample) -> Tensor:
    """(Q, H, W) masks as they are without the flip of a view."""
    masks = sample.pred_instances.masks
    if not sample.get('flip'):
        return masks
    sides = {'horizontal': (2,), 'vertical': (1,), 'diagonal': (1, 2)}
    return masks.flip(sides[sample.flip_direction])
