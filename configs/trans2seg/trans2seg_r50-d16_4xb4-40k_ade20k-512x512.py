_base_ = [
    '../_base_/models/trans2seg_r50-d16.py',
    '../_base_/datasets/ade20k_512.py',
    '../_base_/schedules/adamw_poly_40k.py',
    '../_base_/runtime/segmentation_iters.py',
]

model = dict(data_preprocessor=dict(size=_base_.crop_size), decode_head=dict(num_classes=_base_.num_classes))
optim_wrapper = dict(optimizer=dict(lr=1e-4))
train_dataloader = dict(batch_size=4)
val_dataloader = dict(dataset=dict(pipeline=_base_.aligned_pipeline))
test_dataloader = val_dataloader
auto_scale_lr = dict(base_batch_size=16)
