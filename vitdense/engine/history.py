"""The history of a run's scalars, no longer than anybody looks back.

mmengine keeps a million values of each and copies all of them whenever one is added: at iteration 160 000 of a detector
this takes 10 ms a step, and every checkpoint holds them.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner

LEAST = 1000
"""Values that are kept of each scalar at least."""


class BoundedHistory(OrderedDict):
    """Buffers by the name of their scalar; each is cut to a length when it comes in, and as it grows."""

    def __init__(self, buffers: dict[str, HistoryBuffer], length: Callable[[str], int]) -> None:
        super().__init__()
        self.length = length
        self.update(buffers)

    def __setitem__(self, name: str, buffer: HistoryBuffer) -> None:
        buffer.max_length = min(buffer.max_length, self.length(name))
        for values in ('_log_history', '_count_history'):
            setattr(buffer, values, getattr(buffer, values)[-buffer.max_length :].copy())
        super().__setitem__(name, buffer)


def bound_history(runner: Runner) -> None:
    """Let the message hub of ``runner`` keep what its log processor averages over, and at least ``LEAST`` values.

    Nothing is cut where the log processor averages over all values (``window_size='global'``).
    """
    processor: Any = runner.log_processor
    windows = [processor.window_size, *(cfg.get('window_size') for cfg in processor.custom_cfg)]
    if 'global' in windows:
        return
    longest = max([LEAST, *(window for window in windows if isinstance(window, int))])
    epoch = len(runner.train_dataloader) if 'epoch' in windows else 0
    validation = len(runner.val_dataloader) if runner.val_loop is not None else 0

    def length(name: str) -> int:
        return max(longest, validation if name.startswith('val/') else epoch)

    hub = runner.message_hub
    hub._log_scalars = BoundedHistory(hub.log_scalars, length)
