# Blood cells at their own size and a little below, for detectors that were trained on larger images.
_base_ = './bccd_detection.py'

train_pipeline = _base_.train_pipeline
train_pipeline[2].update(scales=[(512, 384), (576, 432), (640, 480)])
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=(640, 480))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
