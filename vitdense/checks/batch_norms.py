"""Does every batch norm of a segmentor get more than one value a channel?"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from mmengine.config import ConfigDict
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from vitdense.models.layers.across_processes import SyncBatchNormOfCPUs
from vitdense.registry import bare_type

from .rules import Case, rule
from .run import Run

SMALL = 64
"""Sides of the image with which they are tried first; what is found is asked again at the size of the training."""


@rule(
    'batch norm of one value',
    looks_at='batches of one image, the last one of an epoch included, and the sizes of what batch norms get',
    expected='two values or more a channel: PyTorch fails on one, such as an image pooled to 1 x 1',
    needs='model',
)
def one_value(run: Run) -> Iterator[Case]:
    single = _batch_of_one(run)
    norm = _norm_of_one_value(run.model, run.processes) if single else None
    if single and norm:
        key, why, remedy = single
        yield Case(key, f'{why}, and model.{norm} gets one value a channel', remedy=f'--cfg-options {remedy}')


def _batch_of_one(run: Run) -> tuple[str, str, str] | None:
    """Key, description and remedy of a batch of one image, if there is one."""
    train = run.split('train')
    batch, key = train.loader.get('batch_size', 1), f'{train.key}.batch_size'
    if not run.trains or not isinstance(batch, int) or batch < 1 or train.loader.get('batch_sampler'):
        return None
    if batch == 1:
        return key, '1 image for each process', f'{key}=2'
    images = _length(train.loader.get('dataset'), f'{train.key}.dataset', {r.key: r.images for r in train.reports})
    if not images or train.loader.get('drop_last') or bare_type(train.loader.get('sampler')) != 'DefaultSampler':
        return None
    images = math.ceil(images / run.processes)
    steps_of_epoch = math.ceil(images / batch)
    if images % batch != 1 or (not run.by_epoch and (run.length or 0) < steps_of_epoch):
        return None
    return f'{train.key}.drop_last', f'the last batch of {images} images is one image', f'{train.key}.drop_last=True'


def _length(node: ConfigDict | None, key: str, images: dict[str, int]) -> int:
    """Images of a data set and what is around it; 0 if that is not known."""
    if key in images or not isinstance(node, dict):
        return images.get(key, 0)
    if bare_type(node) == 'ConcatDataset':
        parts = [_length(part, f'{key}.datasets.{i}', images) for i, part in enumerate(node['datasets'])]
        return sum(parts) if all(parts) else 0
    known = bare_type(node) in ('RepeatDataset', 'MultiImageMixDataset')
    return node.get('times', 1) * _length(node.get('dataset'), f'{key}.dataset', images) if known else 0


class _OneValue(Exception):
    """Ends a forward pass: the batch norm of this name got one value a channel."""


def _norm_of_one_value(model: Any, processes: int) -> str | None:
    """A batch norm that gets one value a channel from one image in training, by forward passes that change nothing."""
    if not hasattr(model, 'encode_decode'):
        return None
    modes = {module: module.training for module in model.modules()}
    hooks: list[RemovableHandle] = []
    found = None
    try:
        model.train()
        norms = {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}
        norms = {name: norm for name, norm in norms.items() if norm.training and not _is_shared(norm, processes)}
        hooks += [norm.register_forward_pre_hook(_stopping(name)) for name, norm in norms.items()]
        hw = tuple(getattr(model.data_preprocessor, 'size', None) or (512, 512))
        model.eval()
        for size in dict.fromkeys([tuple(min(SMALL, side) for side in hw), hw]) if norms else []:
            found = _pass(model, size)
            if not found:
                break
    except Exception:  # a model that cannot be asked this way fails or not in its first step
        return None
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    return found


def _pass(model: Any, hw: tuple[int, ...]) -> str | None:
    """A grey image through the model and its auxiliary heads, as far as the first batch norm of one value."""
    weight = next(model.parameters())
    mean = getattr(model.data_preprocessor, 'mean', None)
    channels = 3 if mean is None or mean.numel() == 1 else mean.numel()
    metas = [dict(img_shape=torch.Size(hw), ori_shape=hw, pad_shape=hw, padding_size=[0, 0, 0, 0])]
    auxiliary = getattr(model, 'auxiliary_head', None)
    heads = auxiliary if isinstance(auxiliary, nn.ModuleList) else [auxiliary]
    with torch.no_grad(), torch.random.fork_rng([weight.device] if weight.is_cuda else []):
        image = torch.zeros(1, channels, *hw, dtype=weight.dtype, device=weight.device)
        try:
            model.encode_decode(image, metas)
            features = model.extract_feat(image)
            for head in filter(None, heads):
                head(features)
        except _OneValue as norm:
            return str(norm)
    return None


def _is_shared(norm: _BatchNorm, processes: int) -> bool:
    return isinstance(norm, nn.SyncBatchNorm | SyncBatchNormOfCPUs) and processes > 1


def _stopping(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def stop(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0].numel() == inputs[0].shape[1]:
            raise _OneValue(name)

    return stop
