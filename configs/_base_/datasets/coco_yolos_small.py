# The same with images of 256 to 608 pixels for training and 512 for testing (YOLOS-Ti).
_base_ = './coco_yolos.py'

scales = [(side, 1013) for side in range(256, 609, 16)]
train_pipeline = _base_.train_pipeline
train_pipeline[4].update(scales=scales)
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=(853, 512))
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
