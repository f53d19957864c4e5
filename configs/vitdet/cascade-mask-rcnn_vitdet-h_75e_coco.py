_base_ = ['./mask-rcnn_vitdet-h_75e_coco.py', '../_base_/models/cascade_vitdet.py']

model = _base_.cascade
