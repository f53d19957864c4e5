_base_ = ['./mask-rcnn_vitdet-b_100e_coco.py', '../_base_/models/cascade_vitdet.py']

model = _base_.cascade
