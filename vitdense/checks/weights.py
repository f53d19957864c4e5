"""Files of weights that a config names."""

from collections.abc import Iterator
from pathlib import Path

from vitdense.checkpoint.layouts import RELEASES
from vitdense.config.tree import places
from vitdense.files import checkpoints_in

from .rules import Case, rule
from .run import Run

KEYS = ('pretrained', 'teacher_ckpt', 'init_cfg.checkpoint')
"""Ends of keys below `model` whose texts are files of weights."""


@rule(
    'file of weights that is not there',
    looks_at='`load_from`, and each `init_cfg.checkpoint` and `pretrained` of the model. URLs, and names such as '
    '`torchvision://resnet50` and those of releases, are not looked at',
    expected='a file',
    needs='data',
)
def missing_weights(run: Run) -> Iterator[Case]:
    for where, path in named_files(run):
        if path in RELEASES or '://' in path or Path(path).expanduser().is_file():
            continue
        file = Path(path).expanduser()
        beside = checkpoints_in(file.parent, file.name).removeprefix('; ')
        yield Case(where, path, remedy=beside or f'{file.parent} has no checkpoints')


def named_files(run: Run) -> Iterator[tuple[str, str]]:
    """Keys of the config that name a file of weights which the run reads, and the names."""
    given = run.cfg.get('load_from')
    if isinstance(given, str) and given:
        yield 'load_from', given
    if not run.trains:  # a test fills the model from its checkpoint alone
        return
    for key, value in places(run.cfg.get('model') or {}, 'model').items():
        parts = [part for part in key.split('.') if not part.isdigit()]
        if isinstance(value, str) and value and '.'.join(parts).endswith(tuple(f'.{end}' for end in KEYS)):
            yield key, value
