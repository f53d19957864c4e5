# Naive decoder: a 1 x 1 convolution on the last map, auxiliary ones on three before it.
_base_ = './setr_vit-l.py'

head = dict(_base_.up_head, kernel_size=1, up_scale=1)
model = dict(
    decode_head=dict(head, in_index=3),
    auxiliary_head=[dict(head, in_index=i, loss_decode=_base_.loss) for i in range(3)],
)
