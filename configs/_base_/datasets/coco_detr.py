# COCO boxes with the multi-scale training of DETR, whose images have any length before they are cropped.
_base_ = ['mmdet::_base_/datasets/coco_detection.py', './detr_crop.py']

train_pipeline = _base_.detr_crop_pipeline
train_pipeline[1].pop('with_mask')
train_pipeline[3]['transforms'][1][0].update(scales=[(400, 4200), (500, 4200), (600, 4200)])
train_dataloader = dict(dataset=dict(filter_cfg=dict(filter_empty_gt=False), pipeline=train_pipeline))
