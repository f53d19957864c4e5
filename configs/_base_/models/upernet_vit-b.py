# UPerNet on ViT-B: four maps of stride 16, which MultiLevelNeck resizes to strides 4 to 32.
_base_ = 'mmseg::_base_/models/upernet_vit-b16_ln_mln.py'

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='vitdense.ViT',
        arch='base',
        img_size=512,
        out_indices=(2, 5, 8, 11),
        drop_path_rate=0.1,
    ),
)
