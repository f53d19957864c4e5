_base_ = './default.py'

default_scope = 'mmseg'
visualizer = dict(type='SegLocalVisualizer')
default_hooks = dict(visualization=dict(type='SegVisualizationHook'))
