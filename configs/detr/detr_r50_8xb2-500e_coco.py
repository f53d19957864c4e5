_base_ = './detr_r50_8xb2-150e_coco.py'

train_cfg = dict(max_epochs=500, val_interval=10)
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, begin=0, end=500, milestones=[400], gamma=0.1)]
