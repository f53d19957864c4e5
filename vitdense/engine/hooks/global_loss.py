"""What several processes log is the loss of all of them."""

import torch
from mmengine.dist import all_gather_object, all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

from vitdense.registry import HOOKS

from .invalid_loss import INVALID, image_names


@HOOKS.register_module()
class GlobalLossHook(Hook):
    """Makes the losses of a step, before anything reads them, their means over the processes.

    So all processes know of a loss that is not finite, and of the images that have it, and skip the step together.
    Where the processes have different terms, each keeps its own.
    """

    priority = 'HIGHEST'  # before RuntimeInfoHook, which keeps them for the log

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        if not outputs or get_world_size() == 1:
            return
        device = next(runner.model.parameters()).device
        most = torch.tensor([len(outputs), -len(outputs)], device=device)
        all_reduce(most, 'max')
        if most.sum() != 0:
            return
        values = torch.stack([torch.as_tensor(x, device=device).detach().float().mean() for x in outputs.values()])
        invalid = not values.isfinite().all()
        all_reduce(values, 'mean')
        outputs.update(zip(outputs, values.unbind(), strict=True))
        if not values.isfinite().all():
            names = all_gather_object(image_names(data_batch) if invalid else [])
            runner.message_hub.update_info(INVALID, [name for some in names for name in some])
