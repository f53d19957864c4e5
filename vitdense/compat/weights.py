"""What mmengine loads beyond our runner: ``init_cfg`` of type ``Pretrained``, ``init_detector``, the inferencers.

mmengine loads what fits of a file, be it nothing, and warns. With this, files are read by our reader, weights are
brought to models of ours, and a file of which nothing fits is an error.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, Any

from vitdense.compat.after_import import after_import

if TYPE_CHECKING:
    from torch import nn

NAME = 'mmengine.runner.checkpoint'
SCHEMES = ('', 'http://', 'https://')
"""How names of files begin that our reader reads; mmengine keeps those of its other stores."""

MOST_PARTS = 8
"""Parts of a file that a message names."""

_as_it_is: ContextVar[bool] = ContextVar('_as_it_is', default=False)


class AsItIs(AbstractContextManager):
    """Within it, mmengine loads what it is given: somebody else has brought it to the model."""

    def __enter__(self) -> None:
        self.token = _as_it_is.set(True)

    def __exit__(self, *error: object) -> None:
        _as_it_is.reset(self.token)


def install() -> None:
    """Let mmengine load by our reader and our rules. Idempotent."""
    after_import(NAME, use_our_loading)


def use_our_loading(module: Any) -> None:
    """Replace the readers of ``mmengine.runner.checkpoint``, and what puts weights into a module."""
    load = module.load_state_dict
    if hasattr(load, '__wrapped__'):
        return

    @wraps(load)
    def load_state_dict(target: 'nn.Module', state_dict: Mapping, *args: Any, **kwargs: Any) -> None:
        if not _as_it_is.get():
            from vitdense.checkpoint.anywhere import fitted

            state_dict = fitted(target, state_dict)
        load(target, state_dict, *args, **kwargs)

    part_of = module._load_checkpoint_with_prefix

    @wraps(part_of)
    def load_checkpoint_with_prefix(prefix: str, filename: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return part_of(prefix, filename, *args, **kwargs)
        except AssertionError as error:
            content = load_from_vitdense(filename)
            names = content.get('state_dict', content)
            parts = dict.fromkeys(str(name).partition('.')[0] for name in names)
            found = ', '.join(list(parts)[:MOST_PARTS])
            raise ValueError(f'{filename} has nothing under prefix={prefix!r}, only under {found}') from error

    module.load_state_dict = load_state_dict
    module._load_checkpoint_with_prefix = load_checkpoint_with_prefix
    module.CheckpointLoader.register_scheme(SCHEMES, load_from_vitdense, force=True)


def load_from_vitdense(filename: str, map_location: Any = None) -> Any:
    """What is in a file, read onto the CPU by our reader; mmengine prints the end of this function's name."""
    from vitdense.checkpoint.anywhere import read_weights

    return read_weights(filename)
