# UPerNet on ViT-B: four maps of stride 16, which MultiLevelNeck resizes to strides 4 to 32.
_base_ = [
    'mmseg::_base_/models/upernet_vit-b16_ln_mln.py',
    '../_base_/datasets/ade20k_512.py',
    '../_base_/schedules/adamw_poly_160k.py',
    '../_base_/runtime/segmentation_iters.py',
]

vit = dict(type='vitdense.ViT', arch='base', img_size=512, out_indices=(2, 5, 8, 11), drop_path_rate=0.1)
orig = dict(type='vitdense.Pretrained', checkpoint='vit_base_orig')
model = dict(
    data_preprocessor=dict(size=_base_.crop_size, mean=[127.5] * 3, std=[127.5] * 3),  # of these weights
    pretrained=None,
    backbone=dict(_delete_=True, **vit, final_norm=True, init_cfg=orig),
    decode_head=dict(num_classes=_base_.num_classes),
    auxiliary_head=dict(num_classes=_base_.num_classes),
)
train_dataloader = dict(batch_size=2)
