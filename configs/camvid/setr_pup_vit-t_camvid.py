# The same pipeline with a small SETR: six blocks of ViT-Ti, progressive upsampling to full size.
_base_ = [
    '../_base_/models/setr_pup_vit-t.py',
    '../_base_/datasets/camvid.py',
    '../_base_/schedules/adamw_scratch_80e.py',
    '../_base_/runtime/segmentation.py',
]

model = dict(decode_head=dict(num_classes=_base_.num_classes))
