"""Masks of several views of an image."""

import torch
from mmdet.models.test_time_augs import DetTTAModel as MMDetDetTTAModel
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.model import BaseModel
from mmengine.structures import InstanceData

from vitdense.models.test_time import DetTTAModel

SETTINGS = ConfigDict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=3)
HW = (40, 60)


def view(boxes, scores, flip=False, direction='horizontal', with_masks=True) -> DetDataSample:
    """Predictions of a view, as a model makes them: boxes and masks of a flipped image are flipped."""
    boxes = torch.tensor(boxes, dtype=torch.float).reshape(-1, 4)
    h, w = HW
    if flip:
        x1, y1, x2, y2 = boxes.unbind(1)
        boxes = torch.stack([w - x2, y1, w - x1, y2] if direction == 'horizontal' else [x1, h - y2, x2, h - y1], 1)
    instances = InstanceData(
        bboxes=boxes, scores=torch.tensor(scores), labels=torch.zeros(len(boxes), dtype=torch.long)
    )
    if with_masks:
        instances.masks = torch.zeros(len(boxes), h, w, dtype=torch.bool)
        for mask, (x1, y1, x2, y2) in zip(instances.masks, boxes.int().tolist(), strict=True):
            mask[y1:y2, x1:x2] = True
    meta = dict(ori_shape=HW, flip=flip, flip_direction=direction if flip else None)
    return DetDataSample(metainfo=meta, pred_instances=instances)


ONE = ([[2, 3, 20, 30], [30, 5, 50, 25], [5, 5, 9, 9]], [0.9, 0.3, 0.1])
OTHER = ([[31, 5, 51, 25], [3, 3, 21, 30], [50, 30, 58, 38]], [0.8, 0.5, 0.7])


def merged(model, with_masks=True, direction='horizontal'):
    views = [view(*ONE, with_masks=with_masks), view(*OTHER, True, direction, with_masks)]
    [sample] = model(tta_cfg=SETTINGS, module=BaseModelOfTests()).merge_preds([views])
    return sample.pred_instances


class BaseModelOfTests(BaseModel):
    def forward(self, inputs, data_samples=None, mode='tensor'):
        return inputs


def test_the_masks_are_those_of_the_boxes_that_are_kept():
    for direction in ('horizontal', 'vertical'):
        found = merged(DetTTAModel, direction=direction)
        assert found.bboxes.tolist() == [[2, 3, 20, 30], [31, 5, 51, 25], [50, 30, 58, 38]]
        for mask, (x1, y1, x2, y2) in zip(found.masks, found.bboxes.int().tolist(), strict=True):
            assert mask[y1:y2, x1:x2].all()
            assert mask.sum() == (y2 - y1) * (x2 - x1)


def test_the_boxes_are_those_of_mmdet():
    ours, theirs = merged(DetTTAModel), merged(MMDetDetTTAModel, with_masks=False)
    assert torch.equal(ours.bboxes, theirs.bboxes)
    assert torch.equal(ours.scores, theirs.scores)
    assert torch.equal(ours.labels, theirs.labels)
    assert 'masks' not in merged(DetTTAModel, with_masks=False)


def test_nothing_is_found():
    views = [view([], []), view([], [], flip=True)]
    [sample] = DetTTAModel(tta_cfg=SETTINGS, module=BaseModelOfTests()).merge_preds([views])
    assert sample.pred_instances.masks.shape == (0, *HW)
