# ViT-L/16 of SETR with the weights of ImageNet-21k fine-tuned at 384 pixels; the decoder is the leaf's.
_base_ = './encoder_decoder.py'

model = dict(
    backbone=dict(
        type='vitdense.ViT',
        arch='large',
        out_indices=(9, 14, 19, 23),
        pos_resize='bilinear',
        init_cfg=dict(type='vitdense.Pretrained', checkpoint='vit_large_orig_384'),
    ),
)
