# YOLOS-S on COCO, from the official ImageNet weights of DeiT-S, which have no positions between blocks.
model = dict(
    type='SingleStageDetector',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    backbone=dict(
        type='vitdense.YOLOS',
        arch='small',
        init_cfg=dict(type='vitdense.Pretrained', checkpoint='deit_small', min_loaded=0.7),
    ),
    bbox_head=dict(type='vitdense.YOLOSHead', num_classes=80, in_channels=384),
)
