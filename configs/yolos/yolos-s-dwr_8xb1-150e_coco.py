_base_ = './yolos-s_8xb1-150e_coco.py'

# The ImageNet weights have to be fetched by hand, see README.md.
model = dict(
    backbone=dict(arch='small_dwr', init_cfg=dict(checkpoint='checkpoints/deit-small-dWr-scale.pth')),
    bbox_head=dict(in_channels=330),
)
