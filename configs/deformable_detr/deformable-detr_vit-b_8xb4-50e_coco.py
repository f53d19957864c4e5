_base_ = ['./deformable-detr_r50_8xb4-50e_coco.py', '../_base_/models/vitdet-b.py']

# The plain ViT of ViTDet with its windows; levels of stride 8 to 64 from its only map.
model = dict(
    backbone=dict(_delete_=True, **_base_.vitdet),
    neck=dict(
        _delete_=True,
        type='vitdense.SimpleFeaturePyramid',
        in_channels=768,
        scale_factors=(2, 1, 0.5, 0.25),
        num_outs=4,
    ),
)
