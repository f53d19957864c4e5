_base_ = [
    '../_base_/models/retinanet_pvtv2-b0_fpn128.py',
    '../_base_/datasets/bccd_detection.py',
    '../_base_/schedules/adamw_scratch.py',
    '../_base_/runtime/default.py',
]

model = dict(bbox_head=dict(num_classes={{_base_.num_classes}}))
