_base_ = './mask-rcnn_pvt-t_fpn_1x_coco.py'

model = dict(backbone=dict(arch='large', init_cfg=dict(checkpoint='pvt_large')))
optim_wrapper = dict(optimizer=dict(lr=2e-4 / 1.4))

# 8 GPUs x 1 image
train_dataloader = dict(batch_size=1, num_workers=1)
auto_scale_lr = dict(base_batch_size=8)
