_base_ = [
    '../_base_/models/sem-fpn_pvtv2-b0.py',
    '../_base_/datasets/camvid.py',
    '../_base_/schedules/adamw_scratch_80e.py',
    '../_base_/runtime/segmentation.py',
]

# In so narrow a network, linear layers of the usual std 0.02 begin close to nothing.
model = dict(
    backbone=dict(init_cfg=dict(type='Xavier', layer='Linear', distribution='normal')),
    decode_head=dict(num_classes=_base_.num_classes),
)
