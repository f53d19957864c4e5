_base_ = [
    '../_base_/models/trans2seg_r50-d16.py',
    '../_base_/datasets/ade20k_512_aligned.py',
    '../_base_/schedules/adamw_poly_40k.py',
    '../_base_/runtime/segmentation_iters.py',
]

model = dict(decode_head=dict(num_classes={{_base_.num_classes}}))
optim_wrapper = dict(optimizer=dict(lr=1e-4))
train_dataloader = dict(batch_size=4)
auto_scale_lr = dict(base_batch_size=16)
