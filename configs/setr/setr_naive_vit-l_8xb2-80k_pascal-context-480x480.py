_base_ = [
    '../_base_/models/setr_naive_vit-l.py',
    '../_base_/datasets/pascal_context_480.py',
    '../_base_/schedules/setr_80k.py',
    '../_base_/runtime/segmentation_iters.py',
]

model = dict(
    data_preprocessor=dict(size=(480, 480)),
    backbone=dict(img_size=480),
    decode_head=dict(num_classes=_base_.num_classes),
    auxiliary_head=[dict(head, num_classes=_base_.num_classes) for head in _base_.model.auxiliary_head],
    test_cfg=dict(mode='slide', crop_size=(480, 480), stride=(320, 320)),
)
train_dataloader = dict(batch_size=2)
