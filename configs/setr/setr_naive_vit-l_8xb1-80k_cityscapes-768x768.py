_base_ = [
    '../_base_/models/setr_naive_vit-l.py',
    '../_base_/datasets/cityscapes_768.py',
    '../_base_/schedules/setr_80k.py',
    '../_base_/runtime/segmentation_iters.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(img_size=_base_.crop_size[0]),
    decode_head=dict(num_classes=_base_.num_classes),
    auxiliary_head=[dict(head, num_classes=_base_.num_classes) for head in _base_.model.auxiliary_head],
    test_cfg=_base_.slide,
)
train_dataloader = dict(batch_size=1)
auto_scale_lr = dict(base_batch_size=8)
