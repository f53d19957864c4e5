_base_ = [
    '../_base_/models/detr_r50.py',
    '../_base_/datasets/coco_detr.py',
    '../_base_/schedules/detr_150e.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['vitdense'])
