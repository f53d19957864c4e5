_base_ = './deformable-detr_r50_8xb4-50e_coco.py'

# The plain ViT of ViTDet with its windows; levels of stride 8 to 64 from its only map.
model = dict(
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
    neck=dict(
        _delete_=True,
        type='vitdense.SimpleFeaturePyramid',
        in_channels=768,
        scale_factors=(2, 1, 0.5, 0.25),
        num_outs=4,
    ),
)
