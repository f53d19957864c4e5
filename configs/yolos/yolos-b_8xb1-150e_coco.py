_base_ = './yolos-s_8xb1-150e_coco.py'

model = dict(
    backbone=dict(arch='base', init_cfg=dict(checkpoint='deit_base_distilled_384')),
    bbox_head=dict(in_channels=768),
)
