"""Steps whose loss or gradient is not a number."""

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from vitdense.console import say
from vitdense.names import counted
from vitdense.registry import HOOKS

REMEDY = (
    'Usual causes: a learning rate that is too high or has no warm-up, no gradient clipping, fp16 where bf16 is '
    'needed, or wrong boxes (tools/check.py CONFIG --check full).'
)
NOT_FINITE = 'the gradient is not finite'
TOLD = 10
"""Skipped steps that get a line of their own on the console; the log file has them all."""
SKIPPED, IN_A_ROW = 'skipped_steps', 'skipped_in_a_row'
INVALID = 'images_of_an_invalid_loss'
"""Where the message hub has the images with it, where several processes have a part of the batch."""
LEAST_SCALE = 1e-3
"""Of the losses in fp16; one that overflows half of the time stays far above."""


class InvalidLossError(FloatingPointError):
    """Losses or gradients of several steps, or a weight, became NaN or infinite."""


@HOOKS.register_module()
class InvalidLossHook(Hook):
    """Skips a step whose loss or gradient is NaN or infinite, and ends the training where that does not pass.

    A skipped step changes neither weights nor the state of the optimizer, nor the statistics of batch norms. It is
    said, with the images of its batch, and counted. A checkpoint with a weight that is not finite is not saved.

    Args:
        max_skipped: steps in a row that may be skipped.

    Raises:
        InvalidLossError: more in a row, or invalid weights; with the iteration, the terms and the images of its batch,
            before anything of it is saved.
    """

    priority = 'HIGH'  # after mmengine has read the losses from the device for its log, before all that saves

    def __init__(self, max_skipped: int = 5) -> None:
        self.max_skipped = max_skipped
        self._gradient = ''
        self._stepped = False
        self._statistics: list[tuple[Tensor, Tensor]] = []
        self._guards: list = []

    def before_train(self, runner: Runner) -> None:
        self._statistics = [
            (buffer, buffer.detach().clone())
            for module in runner.model.modules()
            if isinstance(module, nn.modules.batchnorm._NormBase)
            for buffer in (module.running_mean, module.running_var, module.num_batches_tracked)
            if buffer is not None
        ]
        info = runner.message_hub.runtime_info  # part of every checkpoint
        sharded = get_world_size() > 1 and not isinstance(runner.model, MMDistributedDataParallel)
        names = {id(parameter): name for name, parameter in runner.model.named_parameters()}
        for wrapper in _wrappers(runner.optim_wrapper):

            def guard(optimizer: Optimizer, *_: object, wrapper: OptimWrapper = wrapper) -> None:
                if float(getattr(optimizer, 'found_inf', 0)):  # fused ones leave out themselves what their scaler found
                    return
                norm, self._stepped = _norm(wrapper), True
                if sharded:
                    all_reduce(norm)
                if torch.isfinite(norm):
                    if info.get(IN_A_ROW):
                        info[IN_A_ROW] = 0
                    return
                self._gradient = _about(optimizer, names)
                optimizer.zero_grad(set_to_none=True)  # a step without gradients is none

            if isinstance(wrapper.optimizer, Optimizer):
                self._guards.append(wrapper.optimizer.register_step_pre_hook(guard))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        if self._statistics:
            current, kept = zip(*self._statistics, strict=True)
            torch._foreach_copy_(kept, current)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        history = runner.message_hub.log_scalars
        logs = {key: history[f'train/{key}'] for key in outputs or {} if f'train/{key}' in history}
        losses = {key: log.current() for key, log in logs.items()}
        wrong = not all(map(math.isfinite, losses.values()))
        if not (wrong or self._gradient or self._stepped) and self._left_out(runner):
            self._gradient = NOT_FINITE
        if wrong or self._gradient:
            names = runner.message_hub.runtime_info.pop(INVALID, None) or image_names(data_batch)
            self._skip(runner, _message(runner.iter + 1, losses, self._gradient, names))
        for log in (*logs.values(), history.get('train/grad_norm')):
            if log is not None and not math.isfinite(log.current()):
                _forget(log)
        self._gradient, self._stepped = '', False

    def _left_out(self, runner: Runner) -> bool:
        """Whether a scaler of losses left a step out that counts as skipped: not where it halves its scale for it."""
        for wrapper in _wrappers(runner.optim_wrapper):
            scaler = getattr(wrapper, 'loss_scaler', None)
            if scaler is None or not scaler.is_enabled() or not wrapper.should_update():
                continue
            if wrapper._scale_update_param is not None:
                return True
            if scaler.get_scale() < LEAST_SCALE:
                raise InvalidLossError(
                    f'iteration {runner.iter + 1}: the scale of the losses fell to {scaler.get_scale():g}, since one '
                    f'gradient after the other is not finite. Nothing of this step is saved. {REMEDY}'
                )
        return False

    def _skip(self, runner: Runner, message: str) -> None:
        info = runner.message_hub.runtime_info
        runner.message_hub.update_info(IN_A_ROW, in_a_row := info.get(IN_A_ROW, 0) + 1)
        if in_a_row > self.max_skipped:
            before = f'It is number {in_a_row} in a row. ' if self.max_skipped else ''
            raise InvalidLossError(f'{message}. {before}Nothing of this step is saved. {REMEDY}')
        for current, kept in self._statistics:
            current.copy_(kept)
        number = info.get(SKIPPED, 0) + 1
        runner.message_hub.update_info(SKIPPED, number)
        runner.logger.warning(f'step skipped: {message}', extra={'to_console': number <= TOLD})

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

    def after_train(self, runner: Runner) -> None:
        for guard in self._guards:
            guard.remove()
        self._guards.clear()
        if number := runner.message_hub.runtime_info.get(SKIPPED, 0):
            were = 'was' if number == 1 else 'were'
            say(f'{counted(number, "step")} of {runner.iter} {were} skipped: a loss or a gradient was not finite')


def _wrappers(wrapper: OptimWrapper | Mapping) -> Iterator[OptimWrapper]:
    """Those of each optimizer."""
    if isinstance(wrapper, OptimWrapper):
        yield wrapper
    else:
        for _, one in wrapper.items():
            yield from _wrappers(one)


def _norm(wrapper: OptimWrapper) -> Tensor:
    """Norm of the gradients at hand, that of before they were clipped where they were."""
    log = wrapper.message_hub.log_scalars.get('train/grad_norm')
    if wrapper.clip_grad_kwargs and wrapper.grad_name == 'grad_norm' and log is not None:
        return torch.as_tensor(float(log.current()))
    groups = wrapper.optimizer.param_groups
    return get_total_norm([one.grad for group in groups for one in group['params'] if one.grad is not None])


def _about(optimizer: Optimizer, names: Mapping[int, str]) -> str:
    """Which gradients are not finite."""
    parameters = [one for group in optimizer.param_groups for one in group['params'] if one.grad is not None]
    wrong = [one for one in parameters if not torch.isfinite(one.grad).all()]
    if 0 < len(wrong) < len(parameters):
        first = names.get(id(wrong[0]), 'unknown')
        return f'{len(wrong)} of {len(parameters)} gradients are not finite, the first is that of {first}'
    return NOT_FINITE


def _forget(log: HistoryBuffer) -> None:
    """Keep the last value out of all means."""
    values, counts = log.data
    values[-1] = counts[-1] = 0


def _message(iteration: int, losses: Mapping[str, float], gradient: str, images: Sequence[str]) -> str:
    wrong = [key for key, value in losses.items() if not math.isfinite(value)]
    terms = [key for key in wrong if key != 'loss'] or wrong
    found = ', '.join(f'{key} is {losses[key]}' for key in terms) or gradient
    return (
        f'iteration {iteration}: {found}. All terms: {", ".join(f"{key} {value:.4g}" for key, value in losses.items())}'
        f'. Images of the batch: {", ".join(images) or "unknown"}'
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
