_base_ = [
    '../_base_/models/transunet_r50-vit-b.py',
    '../_base_/datasets/ade20k_512.py',
    '../_base_/schedules/transunet_160k.py',
    '../_base_/runtime/segmentation_iters.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(img_size=512),
    decode_head=dict(num_classes=_base_.num_classes),
    test_cfg=_base_.slide,
)
train_dataloader = dict(batch_size=3)
