"""Several processes that act as one."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, init_dist, is_distributed, is_main_process

T = TypeVar('T')


def join(cfg: Config, launcher: str) -> None:
    """Join the processes of a launcher, over gloo where there is no GPU (which mmengine cannot)."""
    cfg.launcher = launcher
    if launcher == 'none' or is_distributed():
        return
    settings = dict(cfg.get('env_cfg', {}).get('dist_cfg', {}))
    if torch.cuda.is_available() or launcher != 'pytorch':
        init_dist(launcher, **settings)
    else:
        torch.distributed.init_process_group('gloo')
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )


def leave() -> None:
    """End what :func:`join` began; gloo's threads otherwise abort some processes at their exit."""
    if is_distributed():
        torch.distributed.destroy_process_group()


def on_main_process(prepare: Callable[[], T]) -> T:
    """Result of ``prepare``, run by the main process, in all of them; an exception of it is raised in all as well."""
    outcome: list[Any] = [None, None]
    if is_main_process():
        try:
            outcome[0] = prepare()
        except Exception as error:
            outcome[1] = error
    broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]
