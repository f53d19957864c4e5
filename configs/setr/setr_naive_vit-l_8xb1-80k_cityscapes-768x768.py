_base_ = [
    '../_base_/models/setr_naive_vit-l.py',
    '../_base_/datasets/cityscapes_768.py',
    '../_base_/schedules/setr_80k.py',
    '../_base_/runtime/segmentation_iters.py',
]

model = dict(
    data_preprocessor=dict(size=(768, 768)),
    backbone=dict(img_size=768),
    decode_head=dict(num_classes=_base_.num_classes),
    auxiliary_head=[dict(head, num_classes=_base_.num_classes) for head in _base_.model.auxiliary_head],
    test_cfg=dict(mode='slide', crop_size=(768, 768), stride=(512, 512)),
)
train_dataloader = dict(batch_size=1)
