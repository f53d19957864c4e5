# Generated shapes, for CPUs; the backbone is that of the quickstart, as larger ones come from ImageNet.
_base_ = [
    '../_base_/models/deformable-detr_pvtv2-b0.py',
    '../_base_/datasets/shapes_detection.py',
    '../_base_/schedules/detr_shapes_60e.py',
    '../_base_/runtime/default.py',
]
quickstart = 'work_dirs/retinanet_pvtv2-b0_fpn_shapes/best.pth'
model = dict(
    backbone=dict(init_cfg=dict(type='vitdense.Pretrained', checkpoint=quickstart)),
    bbox_head=dict(num_classes=_base_.num_classes),
)
randomness = dict(seed=0)
