"""Commands in processes of their own."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from . import ROOT

WITHOUT_TORCH = """
import sys
sys.modules['torch'] = None  # an import of it fails
from vitdense.commands import main
main(sys.argv[1], sys.argv[2:])
"""


def without_torch(home: Path, *args: str) -> subprocess.CompletedProcess:
    """Run a command in a process where PyTorch cannot be imported."""
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'COLUMNS': '160'}
    command = [sys.executable, '-c', WITHOUT_TORCH, *args]
    return subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)


def in_two_processes(work: Callable[..., None], *args: object) -> None:
    """Run ``work(*args)`` in two processes as ``torchrun`` starts them; it joins them itself."""
    import torch.multiprocessing

    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_work_as_one_of_two, (port, work, args), nprocs=2)


def _work_as_one_of_two(rank: int, port: int, work: Callable[..., None], args: tuple) -> None:
    settings = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=2, MASTER_ADDR='localhost', MASTER_PORT=port)
    os.environ.update({name: str(value) for name, value in settings.items()}, CUDA_VISIBLE_DEVICES='-1')
    work(*args)
