# UPerNet on MAE's ViT-B: relative positions and LayerScale join in fine-tuning, starting without effect; transposed
# convolutions and pooling make strides 4 to 32 of four maps of stride 16.
_base_ = 'mmseg::_base_/models/upernet_mae.py'

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(
        _delete_=True,
        type='vitdense.ViT',
        arch='base',
        img_size=512,
        pos_resize='bicubic',
        rel_pos='bias_table',
        layer_scale=1.0,
        out_indices=(3, 5, 7, 11),
        drop_path_rate=0.1,
    ),
    decode_head=dict(in_channels=[768, 768, 768, 768], channels=768),
    auxiliary_head=dict(in_channels=768),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)
