"""Runs of a model of two parameters, which take milliseconds."""

import torch
from mmengine.evaluator import Evaluator
from mmengine.model import BaseModel
from torch import nn

from .numbers_drawn import Numbers


class Toy(BaseModel):
    """A line whose loss can be spoilt at one iteration."""

    def __init__(self, bad: float | None = None, at: int = 4) -> None:
        super().__init__()
        self.line = nn.Linear(1, 1)
        self.bad, self.at, self.calls = bad, at, 0

    def forward(self, inputs, data_samples=None, mode='tensor'):
        out = self.line(torch.stack(inputs).float())
        if mode != 'loss':
            return [out]
        self.calls += 1
        loss = out.square().mean()
        spoilt = loss * self.bad if self.bad is not None and self.calls == self.at else loss
        return dict(loss_cls=loss, loss_bbox=spoilt)


def make(runner_type, folder, model, hooks, **overrides):
    return runner_type(
        **{
            'model': model,
            'work_dir': str(folder),
            'train_dataloader': dict(
                batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=Numbers()
            ),
            'train_cfg': dict(by_epoch=True, max_epochs=3),
            'optim_wrapper': dict(optimizer=dict(type='SGD', lr=0.01)),
            'default_hooks': hooks,
            'randomness': dict(seed=0),
            'experiment_name': f'{folder.name}{id(model)}',
            **overrides,
        }
    )


class Score(Evaluator):
    """Finds the same score in each validation."""

    def __init__(self):
        self.metrics = []

    def process(self, data_samples, data_batch=None):
        pass

    def evaluate(self, size):
        return dict(score=0.5)


def validation(interval: int = 1) -> dict:
    """Settings of a run that validates."""
    loader = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=Numbers())
    loop = dict(by_epoch=True, max_epochs=3, val_interval=interval)
    return dict(val_dataloader=loader, val_cfg=dict(), val_evaluator=Score(), train_cfg=loop)
