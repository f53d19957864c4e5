_base_ = [
    'mmseg::_base_/models/upernet_swin.py',
    '../_base_/datasets/ade20k_512.py',
    '../_base_/schedules/adamw_poly_160k.py',
    '../_base_/runtime/segmentation_iters.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(
        _delete_=True,
        type='vitdense.Swin',
        arch='tiny',
        drop_path_rate=0.3,
        init_cfg=dict(type='vitdense.Pretrained', checkpoint='swin_tiny'),
    ),
    decode_head=dict(num_classes=_base_.num_classes),
    auxiliary_head=dict(num_classes=_base_.num_classes),
)
train_dataloader = dict(batch_size=2)
