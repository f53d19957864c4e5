# Mask R-CNN on ViT-Adapter-T as in its official detection code: windows in two of three blocks, LayerScale from 1.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='vitdense.ViTAdapter',
        arch='tiny',
        window_size=14,
        global_blocks=(2, 5, 8, 11),
        layer_scale=1.0,
        add_vit_feature='last',
        drop_path_rate=0.1,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='vitdense.Pretrained', checkpoint='deit_tiny'),
    ),
    neck=dict(in_channels=[192, 192, 192, 192]),
)
