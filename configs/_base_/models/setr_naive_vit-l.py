# Naive decoder: a 1 x 1 convolution on the last map, auxiliary ones on three before it.
_base_ = './setr_vit-l.py'

head = dict(
    type='vitdense.SETRUPHead',
    in_channels=1024,
    channels=256,
    kernel_size=1,
    up_scale=1,
    dropout_ratio=0,
    norm_cfg=dict(type='SyncBN'),
    align_corners=False,
)
loss = dict(type='CrossEntropyLoss', loss_weight=0.4)
model = dict(
    decode_head=dict(head, in_index=3),
    auxiliary_head=[dict(head, in_index=i, loss_decode=loss) for i in range(3)],
)
