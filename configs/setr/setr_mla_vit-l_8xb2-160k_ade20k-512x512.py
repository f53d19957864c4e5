_base_ = [
    '../_base_/models/setr_mla_vit-l.py',
    '../_base_/datasets/ade20k_512.py',
    '../_base_/schedules/setr_160k.py',
    '../_base_/runtime/segmentation_iters.py',
]

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(img_size=512),
    decode_head=dict(num_classes=_base_.num_classes),
    auxiliary_head=[dict(head, num_classes=_base_.num_classes) for head in _base_.model.auxiliary_head],
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
train_dataloader = dict(batch_size=2)
