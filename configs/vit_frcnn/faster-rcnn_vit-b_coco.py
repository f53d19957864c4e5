_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'

custom_imports = dict(imports=['vitdense'])
norm_cfg = dict(type='vitdense.LayerNorm2d', eps=1e-6)
model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),  # of these weights
    backbone=dict(
        _delete_=True,
        type='vitdense.ViT',
        arch='base',
        final_norm=True,
        drop_path_rate=0.1,
        init_cfg=dict(type='vitdense.Pretrained', checkpoint='vit_base_augreg'),
    ),
    neck=dict(_delete_=True, type='ChannelMapper', in_channels=[768], out_channels=256, num_outs=1, norm_cfg=norm_cfg),
    rpn_head=dict(anchor_generator=dict(scales=[2, 4, 8, 16, 32], strides=[16])),
    roi_head=dict(bbox_roi_extractor=dict(featmap_strides=[16])),
)
optim_wrapper = dict(
    constructor='vitdense.LayerDecayOptimWrapperConstructor',
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.1),
    paramwise_cfg=dict(decay_rate=0.7),
)
