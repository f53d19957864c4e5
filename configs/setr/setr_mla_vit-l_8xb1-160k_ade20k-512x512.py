_base_ = './setr_mla_vit-l_8xb2-160k_ade20k-512x512.py'

train_dataloader = dict(batch_size=1)
auto_scale_lr = dict(base_batch_size=8)
