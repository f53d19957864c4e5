# Progressive upsampling: four 3 x 3 convolutions with a doubling each; auxiliary heads with one, on all four maps.
_base_ = './setr_vit-l.py'

head = dict(_base_.up_head, kernel_size=3)
model = dict(
    decode_head=dict(head, in_index=3, num_convs=4, up_scale=2),
    auxiliary_head=[dict(head, in_index=i, up_scale=4, loss_decode=_base_.loss) for i in range(4)],
)
