# COCO with the multi-scale training of DETR, cut to at most 1024 pixels a side.
_base_ = ['mmdet::_base_/datasets/coco_instance.py', './detr_crop.py']

crop1024_pipeline = [
    *_base_.detr_crop_pipeline[:-1],
    dict(type='RandomCrop', crop_type='absolute_range', crop_size=(1024, 1024), allow_negative_crop=True),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=crop1024_pipeline))
