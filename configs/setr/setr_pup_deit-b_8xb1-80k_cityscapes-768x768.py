_base_ = './setr_pup_vit-l_8xb1-80k_cityscapes-768x768.py'

model = dict(
    backbone=dict(arch='base', out_indices=(4, 7, 9, 11), init_cfg=dict(checkpoint='deit_base_distilled_384')),
    decode_head=dict(in_channels=768),
    auxiliary_head=[dict(head, in_channels=768) for head in _base_.model.auxiliary_head],
)
