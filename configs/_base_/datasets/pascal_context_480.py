# Pascal Context with 59 classes and the background, as mmseg reads it: crops of 480 x 480, a long side of 520 for tests.
_base_ = 'mmseg::_base_/datasets/pascal_context.py'

num_classes = 60
slide = dict(mode='slide', crop_size=_base_.crop_size, stride=(320, 320))
