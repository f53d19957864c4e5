"""Small repairs of the OpenMMLab packages. Each is applied only where it is needed."""

import importlib.util
import pkgutil
from importlib.abc import Loader
from types import ModuleType
from typing import Any

from vitdense.compat.after_import import after_import
from vitdense_startup import find_renamed_mmseg


def apply() -> None:
    """Apply every repair, or have it applied when its package is imported; safe to call again."""
    restore_find_loader()
    after_import('torch', trust_checkpoint_classes)
    after_import('mmengine.config.utils', find_renamed_mmseg)
    after_import('mmengine.config.config', find_own_configs)
    after_import('lvis.eval', give_float_to_lvis)


def restore_find_loader() -> None:
    """mmcv and upstream's mmengine call ``pkgutil.find_loader``, which Python 3.14 removed."""
    if not hasattr(pkgutil, 'find_loader'):
        pkgutil.find_loader = _find_loader


def _find_loader(fullname: str) -> Loader | None:
    spec = importlib.util.find_spec(fullname)
    return spec.loader if spec else None


def trust_checkpoint_classes(torch: Any) -> None:
    """mmengine's checkpoints hold its log history, which ``torch.load`` refuses to read since PyTorch 2.6.

    Entries have explicit names because onedl-mmengine forgets the plain ones whenever it has loaded a checkpoint.
    """
    import numpy as np
    from mmengine.logging import HistoryBuffer

    build_array, build_scalar = np.array(0).__reduce__()[0], np.float64(0).__reduce__()[0]
    scalars = {type(np.dtype(code)) for code in np.typecodes['AllInteger'] + np.typecodes['Float'] + '?'}
    trusted = [HistoryBuffer, np.ndarray, np.dtype, *scalars]
    torch.serialization.add_safe_globals(
        [(kind, f'{kind.__module__}.{kind.__qualname__}') for kind in trusted]
        + [(_history_method, 'builtins.getattr')]
        # NumPy 1 wrote numpy.core, NumPy 2 writes numpy._core
        + [(build_array, f'numpy.{folder}.multiarray._reconstruct') for folder in ('core', '_core')]
        + [(build_scalar, f'numpy.{folder}.multiarray.scalar') for folder in ('core', '_core')]
    )


def _history_method(owner: type, name: str) -> Any:
    """What a checkpoint may look up by name: the statistics of mmengine's ``HistoryBuffer``, not any attribute."""
    from mmengine.logging import HistoryBuffer

    if owner is not HistoryBuffer or name.startswith('_'):
        raise AttributeError(f'a checkpoint may only refer to methods of HistoryBuffer, not to {owner!r}.{name}')
    return getattr(owner, name)


def give_float_to_lvis(lvis_eval: Any) -> None:
    """lvis 0.5.3, the last release, evaluates with ``np.float``, which NumPy 1.24 removed."""
    numpy = lvis_eval.np
    if 'float' not in vars(numpy):
        lvis_eval.np = ModuleType('numpy')
        vars(lvis_eval.np).update(vars(numpy), float=float)


def find_own_configs(config: Any) -> None:
    """``_base_ = 'vitdense::...'`` in a config; mmengine knows OpenMMLab's packages alone.

    No scope comes with it: our configs name their types under the ``default_scope`` of mmdet or mmseg.
    """
    known = config.Config._get_cfg_path

    def path_and_scope(base: str, filename: str) -> tuple[str, str | None]:
        from vitdense.config.load import config_path

        return (str(config_path(base)), None) if base.startswith('vitdense::') else known(base, filename)

    config.Config._get_cfg_path = staticmethod(path_and_scope)
