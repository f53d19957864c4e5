"""Running a config: the runner, its processes and its folder; hooks/ is what happens around the steps."""

import io
from contextlib import redirect_stdout

with redirect_stdout(io.StringIO()):  # onedl's packages print at import which optional parts they lack
    from . import hooks
    from .layer_decay import LayerDecayOptimWrapperConstructor
    from .log_processor import LogProcessor
    from .runner import Runner

__all__ = ['LayerDecayOptimWrapperConstructor', 'LogProcessor', 'Runner', 'hooks']
