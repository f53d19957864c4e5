# COCO boxes with the multi-scale training of DETR in steps of a patch. Batches are random: YOLOS sees the padding.
_base_ = 'mmdet::_base_/datasets/coco_detection.py'

resize = dict(type='RandomChoiceResize', resize_type='vitdense.DETRResize')
crop = [
    dict(resize, scales=[(400, 4200), (500, 4200), (600, 4200)]),
    dict(type='RandomCrop', crop_type='absolute_range', crop_size=(384, 600), allow_negative_crop=True),
]
train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomApply', transforms=crop, prob=0.5),
    dict(resize, scales=[(side, 1333) for side in range(480, 801, 16)]),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='vitdense.DETRResize', scale=(1333, 800)),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=1,
    batch_sampler=None,
    dataset=dict(filter_cfg=dict(filter_empty_gt=False), pipeline=train_pipeline),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
