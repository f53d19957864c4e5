"""What several processes put around a model."""

from collections.abc import Iterator

from .rules import Case, rule
from .run import Run


@rule(
    'model sharded over processes',
    looks_at='`model_wrapper_cfg` of several processes',
    expected='MMDistributedDataParallel: the runner saves in one process, which cannot gather the shards of the others',
    remedy='leave model_wrapper_cfg out; with_cp=True of the backbone, --amp and smaller batches save memory',
)
def sharded(run: Run) -> Iterator[Case]:
    wrapper = run.cfg.get('model_wrapper_cfg')
    if run.processes > 1 and run.is_a(wrapper, 'FullyShardedDataParallel', 'MMFullyShardedDataParallel'):
        yield Case('model_wrapper_cfg.type', 'MMFullyShardedDataParallel')
