_base_ = [
    '../_base_/models/mask-rcnn_vit-adapter-t.py',
    '../_base_/datasets/coco_crop1024.py',
    '../_base_/schedules/adamw_36e.py',
    '../_base_/runtime/default.py',
]
