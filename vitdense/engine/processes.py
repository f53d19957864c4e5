"""Several processes that act as one."""

import os
import subprocess
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import broadcast_object_list, init_dist, is_distributed, is_main_process
from mmengine.registry import MODEL_WRAPPERS

from vitdense.models.layers.fast import products

T = TypeVar('T')

PORT = 29500
"""Where the processes meet if nothing says it, as in PyTorch."""

NAMES = {
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
}
"""How launchers tell a process its number, that of all, and its number on its machine."""


def join(cfg: Config, launcher: str) -> None:
    """Join the processes of a launcher as ``env_cfg.dist_cfg`` says, over gloo where there is no GPU.

    mmengine joins processes with GPUs only.

    Raises:
        ValueError: ``env_cfg.dist_cfg.timeout`` is no number of seconds, or the launcher has not started this process.
    """
    cfg.launcher = launcher
    if launcher == 'none' or is_distributed():
        return
    settings = dict((cfg.get('env_cfg') or {}).get('dist_cfg') or {})
    timeout = settings.get('timeout')
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout <= 0):
        raise ValueError(f'env_cfg.dist_cfg.timeout: expected seconds, found {timeout!r}')
    if get_device() != 'cpu':
        init_dist(launcher, **settings)
        return
    if timeout is not None:
        settings['timeout'] = timedelta(seconds=timeout)
    if 'nccl' in (settings.get('backend') or 'nccl'):
        settings['backend'] = 'gloo'
    settings.pop('init_backend', None)
    tell_environment(launcher, settings.pop('port', None))
    torch.distributed.init_process_group(**settings)


def tell_environment(launcher: str, port: int | None = None) -> None:
    """Set the variables by which PyTorch joins processes, from those of Slurm or MPI.

    Raises:
        ValueError: the launcher has not started this process.
    """
    names = 'RANK', 'WORLD_SIZE', 'LOCAL_RANK'
    for name, theirs in zip(names, NAMES.get(launcher, names), strict=True):
        if theirs not in os.environ:
            start = {'pytorch': 'torchrun', 'slurm': 'srun', 'mpi': 'mpirun'}[launcher]
            raise ValueError(f'--launcher {launcher}: {theirs} is not set; start the command with {start}')
        os.environ[name] = os.environ[theirs]
    if port is not None:
        os.environ['MASTER_PORT'] = str(port)
    os.environ.setdefault('MASTER_PORT', str(PORT))
    if 'MASTER_ADDR' not in os.environ:
        os.environ['MASTER_ADDR'] = _first_host() if launcher == 'slurm' else 'localhost'


def _first_host() -> str:
    """First of the machines of a Slurm job."""
    command = ['scontrol', 'show', 'hostnames', os.environ.get('SLURM_NODELIST', '')]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]


def wrapper_on_cpus(cfg: Config, settings: dict | None) -> dict:
    """``model_wrapper_cfg`` for CPUs, where mmengine's own default names a GPU."""
    settings = dict(settings or {})
    kind = settings.setdefault('type', 'MMDistributedDataParallel')
    kind = MODEL_WRAPPERS.get(kind) if isinstance(kind, str) else kind
    if isinstance(kind, type) and issubclass(kind, torch.nn.parallel.DistributedDataParallel):
        settings['device_ids'] = None
        settings.setdefault('broadcast_buffers', False)
        settings.setdefault('find_unused_parameters', cfg.get('find_unused_parameters', False))
    return settings


def agree_on_products() -> None:
    """Let the library that the main process chooses compute the matrix products of all, on CPUs.

    Raises:
        ValueError: a library is forced that does not exist, or not there.
    """
    if get_device() == 'cpu':
        products.use(on_main_process(products.choose))


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
