"""Real runs of mmengine's runner on generated shapes, with a model of one parameter that predicts what it is told."""

from pathlib import Path
from uuid import uuid4

import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn

from vitdense.datasets import ShapesDataset, ShapesSegDataset

TRAIN, VAL = 8, 10


class ToyDetector(BaseModel):
    """Two loss terms; predicts one box a hundredth of the image inside its border, and one of a low score."""

    preprocessor = dict(type='mmdet.DetDataPreprocessor', bgr_to_rgb=True)

    def __init__(self) -> None:
        super().__init__(data_preprocessor=self.preprocessor)
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, inputs: Tensor, data_samples: list, mode: str) -> dict | list:
        if mode == 'loss':
            return dict(loss_a=(self.weight - 2) ** 2 * inputs.float().mean() / 255, loss_b=self.weight.abs())
        for sample in data_samples:
            self.predict(sample)
        return data_samples

    def predict(self, sample) -> None:
        h, w = sample.ori_shape
        boxes = torch.tensor([[w / 100, h / 100, w * 0.99, h * 0.99], [0, 0, w / 2, h / 2]])
        sample.pred_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 1]), scores=torch.tensor([0.9, 0.1]))


class ToySegmentor(ToyDetector):
    """Predicts class 1 everywhere."""

    preprocessor = dict(type='mmseg.SegDataPreProcessor', bgr_to_rgb=True, size=(64, 64))

    def predict(self, sample) -> None:
        sample.pred_sem_seg = PixelData(data=torch.ones(1, *sample.ori_shape, dtype=torch.long))


class ToyMetric(BaseMetric):
    """The values it is given, one after the other."""

    default_prefix = 'toy'

    def __init__(self, values: list[dict]) -> None:
        super().__init__()
        self.values = list(values)

    def process(self, data_batch: dict, data_samples: list) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list) -> dict:
        return self.values.pop(0)


class Spy(Hook):
    """Keeps the losses of each iteration, the learning rate of each, and the training batches."""

    def __init__(self) -> None:
        self.losses, self.rates, self.batches = [], [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.rates.append(runner.optim_wrapper.get_lr()['lr'][0])
        self.batches.append(data_batch)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.losses.append({key: value.item() for key, value in outputs.items()})


def toy_runner(
    work_dir: Path,
    data_root: Path,
    hooks: list,
    metrics: list[dict],
    train_cfg: dict,
    seg: bool = False,
    **kwargs,
) -> Runner:
    """A runner with batches of 4 of 8 training images, in order, and 10 validation images."""
    scope, dataset = ('mmseg', ShapesSegDataset) if seg else ('mmdet', ShapesDataset)
    load = [
        dict(type='LoadImageFromFile'),
        dict(type='mmseg.LoadAnnotations')
        if seg
        else dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True),
    ]
    resize = dict(type=f'{scope}.Resize', scale=(64, 64))
    pack = dict(type='mmseg.PackSegInputs') if seg else dict(
        type='mmdet.PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
    )  # fmt: skip

    def loader(split: str, batch_size: int, sampler: str) -> dict:
        data = dataset(
            data_root=str(data_root), split=split, num_train=TRAIN, num_val=VAL, pipeline=[*load, resize, pack],
            test_mode=split == 'val',
        )  # fmt: skip
        return dict(
            batch_size=batch_size,
            num_workers=0,
            sampler=dict(type=sampler, shuffle=False),
            dataset=data,
            collate_fn=dict(type='pseudo_collate'),
        )

    return Runner(
        model=(ToySegmentor if seg else ToyDetector)(),
        work_dir=str(work_dir),
        train_dataloader=loader('train', 4, 'DefaultSampler' if train_cfg.get('by_epoch', True) else 'InfiniteSampler'),
        val_dataloader=loader('val', 3, 'DefaultSampler'),
        val_evaluator=[ToyMetric(metrics)],
        train_cfg=train_cfg,
        val_cfg=dict(),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        param_scheduler=dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=6),
        custom_hooks=hooks,
        default_scope=scope,
        experiment_name=uuid4().hex,  # runs of one process that share a name share their history of losses
        **kwargs,
    )
