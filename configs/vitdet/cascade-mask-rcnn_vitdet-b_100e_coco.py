_base_ = [
    '../_base_/models/cascade-mask-rcnn_vitdet-b.py',
    '../_base_/datasets/coco_lsj1024.py',
    '../_base_/schedules/vitdet_100e.py',
    '../_base_/runtime/default.py',
]

log_processor = dict(by_epoch=False)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=5000))
