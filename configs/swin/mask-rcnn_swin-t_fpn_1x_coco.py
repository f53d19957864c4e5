_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
]

custom_imports = dict(imports=['vitdense'])
model = dict(
    backbone=dict(
        _delete_=True,
        type='vitdense.Swin',
        arch='tiny',
        drop_path_rate=0.2,
        init_cfg=dict(type='vitdense.Pretrained', checkpoint='swin_tiny'),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(custom_keys={'relative_position_bias_table': dict(decay_mult=0), 'norm': dict(decay_mult=0)}),
)
