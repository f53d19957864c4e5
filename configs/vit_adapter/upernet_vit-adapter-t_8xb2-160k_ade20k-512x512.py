_base_ = [
    '../_base_/models/upernet_vit-adapter-t.py',
    '../_base_/datasets/ade20k_512_aligned.py',
    '../_base_/schedules/adamw_poly_160k.py',
    '../_base_/runtime/segmentation_iters.py',
]

model = dict(
    decode_head=dict(num_classes={{_base_.num_classes}}),
    auxiliary_head=dict(num_classes={{_base_.num_classes}}),
)
optim_wrapper = dict(
    type='AmpOptimWrapper',
    loss_scale=dict(init_scale=512.0),
    optimizer=dict(lr=1.2e-4),
    paramwise_cfg=dict(_delete_=True, decay_rate=0.95),
)
train_dataloader = dict(batch_size=2)
