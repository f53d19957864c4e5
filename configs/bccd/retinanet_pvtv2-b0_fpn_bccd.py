_base_ = [
    '../_base_/models/retinanet_pvtv2-b0_fpn128.py',
    '../_base_/datasets/bccd_detection.py',
    '../_base_/schedules/adamw_scratch.py',
    '../_base_/runtime/default.py',
]

# Platelets are about 20 pixels wide at this image size: anchors from 24 pixels.
model = dict(
    bbox_head=dict(num_classes=_base_.num_classes, anchor_generator=dict(octave_base_scale=3)),
    test_cfg=dict(nms=dict(_delete_=True, type='soft_nms', iou_threshold=0.5)),
)
auto_scale_lr = dict(base_batch_size=4)
