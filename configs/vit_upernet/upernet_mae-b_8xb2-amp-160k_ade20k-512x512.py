_base_ = [
    '../_base_/models/upernet_mae-b.py',
    '../_base_/datasets/ade20k_512.py',
    '../_base_/schedules/adamw_poly_160k.py',
    '../_base_/runtime/segmentation_iters.py',
]

model = dict(
    backbone=dict(init_cfg=dict(type='vitdense.Pretrained', checkpoint='mae_vit_base')),
    decode_head=dict(num_classes={{_base_.num_classes}}),
    auxiliary_head=dict(num_classes={{_base_.num_classes}}),
)
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(_delete_=True, decay_rate=0.65),
)
train_dataloader = dict(batch_size=2)
