# Mask R-CNN of ViTDet: simple feature pyramid, LayerNorm in the heads, two convolutions in the RPN.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

norm_cfg = dict(type='vitdense.LayerNorm2d', eps=1e-6)
model = dict(
    data_preprocessor=dict(pad_size_divisor=1024),
    backbone=dict(
        _delete_=True,
        type='vitdense.ViT',
        arch='base',
        class_token=False,
        pos_resize='bicubic',
        rel_pos='decomposed',
        rel_pos_size=1024,
        window_size=14,
        global_blocks=(2, 5, 8, 11),
        drop_path_rate=0.1,
        init_cfg=dict(type='vitdense.Pretrained', checkpoint='mae_vit_base'),
    ),
    neck=dict(_delete_=True, type='vitdense.SimpleFeaturePyramid', in_channels=768),
    rpn_head=dict(num_convs=2),
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg),
    ),
)
