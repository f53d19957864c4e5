# Segmentation that is counted in iterations.
_base_ = './segmentation.py'

log_processor = dict(by_epoch=False)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=4000))
tta_model = dict(type='SegTTAModel')
