# Cityscapes as mmseg reads it: crops of 768 x 768, whole images of 2048 x 1024 for tests.
_base_ = 'mmseg::_base_/datasets/cityscapes_768x768.py'

num_classes = 19
