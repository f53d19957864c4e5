_base_ = [
    '../_base_/models/deformable-detr_r50.py',
    '../_base_/datasets/coco_detr.py',
    '../_base_/schedules/deformable_detr_50e.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['vitdense'])

train_dataloader = dict(batch_size=4)
