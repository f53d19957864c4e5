# Trans2Seg of the medium size with ResNet-50 of stride 16; the number of classes is the data set's.
_base_ = './encoder_decoder.py'

norm_cfg = dict(type='SyncBN')
model = dict(
    backbone=dict(
        type='ResNetV1c',
        depth=50,
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        contract_dilation=True,
        norm_cfg=norm_cfg,
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://resnet50_v1c'),
    ),
    decode_head=dict(type='vitdense.Trans2SegHead', in_index=(0, 3), in_channels=(256, 2048), norm_cfg=norm_cfg),
)
