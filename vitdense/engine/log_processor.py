"""What is logged of a training step."""

import resource
import sys
from datetime import timedelta
from typing import cast

import numpy as np
import torch
from mmengine.dist import get_world_size
from mmengine.runner import LogProcessor as MMEngineLogProcessor
from mmengine.runner import Runner
from torch.utils.data import BatchSampler, DataLoader

from vitdense.registry import LOG_PROCESSORS


@LOG_PROCESSORS.register_module()
class LogProcessor(MMEngineLogProcessor):
    """mmengine's log processor with images per second, the share of time spent waiting for data, and memory on CPUs.

    Arguments as for ``mmengine.runner.LogProcessor``.
    """

    def get_log_after_iter(self, runner: Runner, batch_idx: int, mode: str) -> tuple[dict, str]:
        """Scalars and log line of a step, see ``mmengine.runner.LogProcessor``."""
        with np.errstate(invalid='ignore'):  # the mean of a window whose steps were all skipped is NaN
            tag, line = super().get_log_after_iter(runner, batch_idx, mode)
        if mode != 'train' or 'time' not in tag:
            return tag, line
        tag['images_per_second'] = batch_size(runner.train_dataloader) * get_world_size() / max(tag['time'], 1e-9)
        tag['data_share'] = tag['data_time'] / max(tag['time'], 1e-9)
        tag.setdefault('memory', peak_memory())
        return tag, train_line(runner, batch_idx, tag)


def train_line(runner: Runner, batch_idx: int, tag: dict) -> str:
    """A training step for people, from the scalars of :class:`LogProcessor`."""
    parts = [position(runner, 1)]
    if runner.log_processor.by_epoch:
        parts.append(f'step {batch_idx + 1}/{len(runner.train_dataloader)}')
    if 'eta' in runner.message_hub.runtime_info:
        parts.append(f'eta {duration(runner.message_hub.get_info("eta"))}')
    parts += [
        f'{tag["images_per_second"]:.3g} img/s',
        f'data {tag["data_share"]:.0%}',
        f'mem {tag["memory"] / 1024:.1f} GB',
    ]
    parts += [f'{key} {value:.2e}' for key, value in tag.items() if key.endswith('lr') and 'base_lr' not in key]
    parts += [f'{key} {value:.4g}' for key, value in tag.items() if 'loss' in key or key == 'grad_norm']
    return '  '.join(parts)


def batch_size(loader: DataLoader) -> int:
    """Images of a step of one process, also where a batch sampler of its own decides."""
    return loader.batch_size or cast(BatchSampler, loader.batch_sampler).batch_size


def position(runner: Runner, ahead: int = 0) -> str:
    """Where the training is: ``epoch 3/20``, or ``iter 400/160000``; ``ahead`` counts what is under way as well."""
    if runner.log_processor.by_epoch:
        return f'epoch {runner.epoch + ahead}/{runner.max_epochs}'
    return f'iter {runner.iter + ahead}/{runner.max_iters}'


def duration(seconds: float) -> str:
    """Hours, minutes and seconds: ``1:02:03``."""
    return str(timedelta(seconds=round(seconds)))


def peak_memory() -> float:
    """Largest memory use so far in MB: of the GPU, or of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == 'darwin' else 2**10)
