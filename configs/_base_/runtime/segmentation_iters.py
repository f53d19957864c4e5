# Segmentation that is counted in iterations.
_base_ = './default.py'

default_scope = 'mmseg'
visualizer = dict(type='SegLocalVisualizer')
log_processor = dict(by_epoch=False)
default_hooks = dict(
    visualization=dict(type='SegVisualizationHook'),
    checkpoint=dict(by_epoch=False, interval=4000),
)
tta_model = dict(type='SegTTAModel')
