"""How processes that load data hand over tensors."""

import torch.multiprocessing

MANY = 65_536
FEW = 1024
"""Open files that suffice for the batches of some workers."""


def allow_many_files() -> None:
    """Let this process open as many files as it may: each tensor that a worker hands over is one.

    Where the system allows few, tensors travel by names instead, which takes no open files.
    """
    try:
        import resource
    except ImportError:  # Windows, where there is no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MANY if hard == resource.RLIM_INFINITY else min(hard, MANY)
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < FEW:
        torch.multiprocessing.set_sharing_strategy('file_system')
