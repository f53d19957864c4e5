_base_ = [
    '../_base_/models/detr_r50.py',
    '../_base_/datasets/coco_detr.py',
    '../_base_/schedules/detr_150e.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['vitdense'])

train_cfg = dict(max_epochs=500, val_interval=10)
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, begin=0, end=500, milestones=[400], gamma=0.1)]
