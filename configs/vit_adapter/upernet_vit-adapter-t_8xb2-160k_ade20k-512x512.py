_base_ = [
    '../_base_/models/upernet_vit-adapter-t.py',
    '../_base_/datasets/ade20k_512.py',
    '../_base_/schedules/adamw_poly_160k.py',
    '../_base_/runtime/segmentation_iters.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    decode_head=dict(num_classes=_base_.num_classes),
    auxiliary_head=dict(num_classes=_base_.num_classes),
    test_cfg=_base_.slide,
)
optim_wrapper = dict(
    type='AmpOptimWrapper',
    loss_scale=dict(init_scale=512.0),
    optimizer=dict(lr=1.2e-4),
    paramwise_cfg=dict(_delete_=True, decay_rate=0.95),
)
train_dataloader = dict(batch_size=2)
val_dataloader = dict(dataset=dict(pipeline=_base_.aligned_pipeline))
test_dataloader = val_dataloader
