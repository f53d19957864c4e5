"""Settings of the loaders that exclude each other."""

from collections.abc import Iterator

from .rules import Case, rule
from .run import Run


@rule(
    'setting for workers that are not there',
    looks_at='`persistent_workers`, `prefetch_factor` and `timeout` of each loader with `num_workers=0`',
    expected='num_workers of 1 or more, or none of these settings: PyTorch refuses them',
)
def no_workers(run: Run) -> Iterator[Case]:
    for split in run.splits:
        if split.loader.get('num_workers', 0):
            continue
        for name, off in (('persistent_workers', False), ('prefetch_factor', None), ('timeout', 0)):
            value = split.loader.get(name)
            if value:
                key = f'{split.key}.{name}'
                yield Case(key, f'{value} with num_workers=0', remedy=f'--cfg-options {key}={off}')
