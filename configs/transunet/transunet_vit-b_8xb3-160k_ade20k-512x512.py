_base_ = './transunet_r50-vit-b_8xb3-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(type='vitdense.ViT', out_indices=(11,), init_cfg=dict(checkpoint='vit_base_augreg')),
    decode_head=dict(in_channels=[768], in_index=[0]),
)
