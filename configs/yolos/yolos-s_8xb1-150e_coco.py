_base_ = [
    '../_base_/models/yolos-s.py',
    '../_base_/datasets/coco_yolos.py',
    '../_base_/schedules/yolos_150e.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['vitdense'])
