"""Stop at the first loss that is not a number."""

import math
from collections.abc import Mapping, Sequence

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from vitdense.registry import HOOKS

REMEDY = (
    'Usual causes: a learning rate that is too high or has no warm-up, no gradient clipping, fp16 where bf16 is '
    'needed, or wrong boxes (tools/check.py CONFIG --check full).'
)


class InvalidLossError(FloatingPointError):
    """A loss or a weight became NaN or infinite."""


@HOOKS.register_module()
class InvalidLossHook(Hook):
    """Ends the training when a loss, or at a checkpoint a weight, is NaN or infinite, before anything of it is saved.

    Raises:
        InvalidLossError: with the iteration, the terms and the images of its batch.
    """

    priority = 'HIGH'  # after mmengine has read the losses from the device for its log, before all that saves

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        history = runner.message_hub.log_scalars
        losses = {key: history[f'train/{key}'].current() for key in outputs or {} if f'train/{key}' in history}
        if not all(map(math.isfinite, losses.values())):
            raise InvalidLossError(_message(runner.iter + 1, losses, image_names(data_batch)))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        invalid = [
            key
            for key, value in checkpoint['state_dict'].items()
            if value.is_floating_point() and not torch.isfinite(value).all()
        ]
        if invalid:
            raise InvalidLossError(
                f'after iteration {checkpoint["meta"]["iter"]} {len(invalid)} tensors of the model are not finite, the '
                f'first is {invalid[0]}. The checkpoint is not saved. {REMEDY}'
            )


def _message(iteration: int, losses: Mapping[str, float], images: Sequence[str]) -> str:
    wrong = [key for key, value in losses.items() if not math.isfinite(value)]
    terms = [key for key in wrong if key != 'loss'] or wrong
    return (
        f'iteration {iteration}: ' + ', '.join(f'{key} is {losses[key]}' for key in terms) + '. All terms: '
        f'{", ".join(f"{key} {value:.4g}" for key, value in losses.items())}. Images of the batch: '
        f'{", ".join(images) or "unknown"}. Nothing of this step is saved. {REMEDY}'
    )


def image_names(data_batch: Mapping | None) -> list[str]:
    """``id (path)`` of each image of a batch."""
    samples = data_batch.get('data_samples') or [] if isinstance(data_batch, Mapping) else []
    names = []
    for sample in samples:
        meta = getattr(sample, 'metainfo', {})
        if 'img_id' in meta or 'img_path' in meta:
            names.append(f'{meta.get("img_id", "?")} ({meta.get("img_path", "?")})')
    return names
