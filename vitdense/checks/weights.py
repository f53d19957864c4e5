"""Files of weights that a config names, before a run needs them."""

from collections.abc import Iterator

from vitdense.checkpoint.fetch import fetch
from vitdense.checkpoint.layouts import RELEASES
from vitdense.config.tree import places
from vitdense.files import REMOTE

from .rules import Case, rule
from .run import Run

KEYS = ('pretrained', 'teacher_ckpt', 'init_cfg.checkpoint')
"""Ends of keys below `model` whose texts are files of weights."""


@rule(
    'missing checkpoint',
    looks_at='`load_from`, and each `init_cfg.checkpoint` and `pretrained` of the model. URLs, and names such as '
    '`torchvision://resnet50` and those of releases, are not looked at',
    expected='a file',
)
def missing_weights(run: Run) -> Iterator[Case]:
    for where, path in named_files(run):
        if path in RELEASES or REMOTE.match(path):
            continue
        try:
            fetch(path)
        except (FileNotFoundError, ValueError) as error:
            yield Case(where, str(error))


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
