"""A hook that configs may still name."""

from mmengine.hooks import Hook

from vitdense.registry import HOOKS


@HOOKS.register_module()
class WorkerSeedHook(Hook):
    """Does nothing: what is drawn for an image depends on its place in the data, see :mod:`vitdense.datasets.draws`."""
