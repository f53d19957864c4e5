"""Running a config: the runner, its processes and its folder; hooks/ is what happens around the steps."""

from vitdense.console import silent_imports

with silent_imports():
    from . import hooks
    from .amp import AmpOptimWrapper
    from .layer_decay import LayerDecayOptimWrapperConstructor
    from .log_processor import LogProcessor
    from .runner import Runner

__all__ = ['AmpOptimWrapper', 'LayerDecayOptimWrapperConstructor', 'LogProcessor', 'Runner', 'hooks']
