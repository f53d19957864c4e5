# UPerNet on MAE's ViT-B: relative positions and LayerScale join in fine-tuning, starting without effect; transposed
# convolutions and pooling make strides 4 to 32 of four maps of stride 16.
_base_ = [
    'mmseg::_base_/models/upernet_mae.py',
    '../_base_/datasets/ade20k_512.py',
    '../_base_/schedules/adamw_poly_160k.py',
    '../_base_/runtime/segmentation_iters.py',
]

vit = dict(type='vitdense.ViT', arch='base', img_size=512, rel_pos='bias_table', layer_scale=1.0, drop_path_rate=0.1)
mae = dict(type='vitdense.Pretrained', checkpoint='mae_vit_base')
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(_delete_=True, **vit, pos_resize='bicubic', out_indices=(3, 5, 7, 11), init_cfg=mae),
    decode_head=dict(num_classes=_base_.num_classes, in_channels=[768, 768, 768, 768], channels=768),
    auxiliary_head=dict(num_classes=_base_.num_classes, in_channels=768),
    test_cfg=_base_.slide,
)
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(_delete_=True, decay_rate=0.65),
)
train_dataloader = dict(batch_size=2)
