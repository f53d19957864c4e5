# What makes Cascade Mask R-CNN of ViTDet from its Mask R-CNN: box heads of three stages, boxes the same for all classes.
stage_heads = [
    dict(
        type='Shared4Conv1FCBBoxHead',
        in_channels=256,
        roi_feat_size=7,
        num_classes=80,
        reg_class_agnostic=True,
        norm_cfg=dict(type='vitdense.LayerNorm2d', eps=1e-6),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0.0, 0.0, 0.0, 0.0], target_stds=stds),
        loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
        loss_bbox=dict(type='L1Loss', loss_weight=1.0),
    )
    for stds in ([0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [1 / 30, 1 / 30, 1 / 15, 1 / 15])
]
stage_training = [
    dict(
        assigner=dict(
            type='MaxIoUAssigner',
            pos_iou_thr=iou,
            neg_iou_thr=iou,
            min_pos_iou=iou,
            match_low_quality=False,
            ignore_iof_thr=-1,
        ),
        sampler=dict(type='RandomSampler', num=512, pos_fraction=0.25, neg_pos_ub=-1, add_gt_as_proposals=True),
        mask_size=28,
        pos_weight=-1,
        debug=False,
    )
    for iou in (0.5, 0.6, 0.7)
]
cascade = dict(
    type='CascadeRCNN',
    roi_head=dict(type='CascadeRoIHead', num_stages=3, stage_loss_weights=[1, 0.5, 0.25], bbox_head=stage_heads),
    train_cfg=dict(rcnn=stage_training),
)
