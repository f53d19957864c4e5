"""What the checks, the hooks and the exact resume of vitdense cost: ``python benchmarks/overhead.py CONFIG``.

The config is trained as it is (``--cfg-options train_cfg.max_epochs=1`` shortens it) in a temporary folder. Printed are
the seconds of the scan without and with its cache, and for each hook its seconds and their share of the whole training,
with the steps alone, the validations and what is drawn at the start and the end in columns of their own. Then what each
part of the exact resume takes of a step, alone and in microseconds, against the mean of the steps of this training.
"""

import os
import statistics
import tempfile
import time
import timeit
from collections import defaultdict
from collections.abc import Callable, Iterator
from uuid import uuid4

from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import Runner
from rich.table import Table
from torch.utils.data import BatchSampler

from vitdense.commands import parser_of
from vitdense.commands.early import read_early
from vitdense.commands.prepare import build_runner, describe_run
from vitdense.console import CONSOLE
from vitdense.datasets.draws import IMAGE, STEP, PlacedBatches, pipelines_of, seed_host, seed_process
from vitdense.datasets.scan import scan_data
from vitdense.engine.history import LEAST, bound_history
from vitdense.engine.log_processor import batch_size

STEPS = ('before_train_iter', 'after_train_iter')
EVALUATIONS = ('before_val', 'before_val_epoch', 'before_val_iter', 'after_val_iter', 'after_val_epoch', 'after_val')


def time_hooks(hooks: list[Hook]) -> dict[str, dict[str, float]]:
    """Make the hooks of vitdense count their seconds; hook -> stage -> seconds, filled while they run."""
    seconds = defaultdict(lambda: defaultdict(float))
    for hook in hooks:
        if type(hook).__module__.startswith('vitdense.'):
            for stage in Hook.stages:
                setattr(hook, stage, timed(getattr(hook, stage), seconds[type(hook).__name__], stage))
    return seconds


def timed(method, seconds: dict[str, float], stage: str):
    def call(*args, **kwargs):
        start = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            seconds[stage] += time.perf_counter() - start

    return call


class StepClock(Hook):
    """Seconds from the start of each step to that of the next."""

    def __init__(self) -> None:
        self.starts: list[float] = []

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        self.starts.append(time.perf_counter())

    def step(self) -> float:
        """The median, so that validations and checkpoints are not among them."""
        return statistics.median(b - a for a, b in zip(self.starts, self.starts[1:], strict=False))


def microseconds(call: Callable[[], object], number: int = 300) -> float:
    """The median of five means of ``number`` calls."""
    return statistics.median(timeit.repeat(call, number=number, repeat=5)) / number * 1e6


def resume_parts(runner: Runner) -> Iterator[tuple[str, float]]:
    """What a step of ``runner`` takes more for being resumable, part by part, in microseconds."""
    loader = runner.train_dataloader
    size = batch_size(loader)
    yield 'seeds of the step', microseconds(lambda: seed_process(STEP, 3, 0, 1000))
    endless = BatchSampler(range(10**9), size, False)
    placed, bare = iter(PlacedBatches(endless, 3)), iter(endless)
    yield 'seed and place of the batch', microseconds(lambda: next(placed)) - microseconds(lambda: next(bare))
    seeds = size * microseconds(lambda: seed_host(IMAGE, 3, 1, 1000))
    found, workers = microseconds(lambda: list(pipelines_of(loader.dataset))), max(1, loader.num_workers)
    yield f'seeds of {size} images, shared by {workers}', (seeds + found) / workers
    scalars = [key for key in runner.message_hub.log_scalars if key.startswith('train/')]
    updates = []
    for bounded in (True, False):
        hub = MessageHub.get_instance(uuid4().hex)
        hub.log_scalars.update({key: HistoryBuffer([1.0] * LEAST, [1] * LEAST) for key in scalars})
        if bounded:
            own, runner.message_hub = runner.message_hub, hub
            bound_history(runner)
            runner.message_hub = own
        updates.append(microseconds(lambda hub=hub: [hub.update_scalar(key, 1.0) for key in scalars]))
    yield f'{len(scalars)} histories of {LEAST} values, against unbounded ones', updates[0] - updates[1]


def print_parts(runner: Runner, step: float) -> None:
    """The table of the parts, against a step of so many seconds."""
    table = Table(title=f'exact resume, of a step of {step * 1e3:.1f} ms')
    for column in ('part', 'microseconds', 'share of the step'):
        table.add_column(column, justify='left' if column == 'part' else 'right')
    parts = dict(resume_parts(runner))
    for name, value in [*parts.items(), ('all', sum(parts.values()))]:
        table.add_row(name, f'{value:.0f}', f'{value / step / 1e6:.3%}')
    CONSOLE.print(table)


def main() -> None:
    args = parser_of('check').parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ['VITDENSE_CACHE'] = folder
        cfg = read_early(args)
        cfg.work_dir = f'{folder}/run'
        scans = []
        for _ in range(2):
            start = time.perf_counter()
            reports = scan_data(cfg, ('train', 'val'), args.check)
            scans.append(time.perf_counter() - start)
        opened = sum(report.opened for report in reports)
        CONSOLE.print(f'scan of {opened} images: {scans[0]:.2f} s, again from the cache {scans[1]:.2f} s')
        runner = build_runner(describe_run(cfg, ('train', 'val')))
        runner.data_reports = reports
        clock = StepClock()
        runner.register_hook(clock)
        seconds = time_hooks(runner.hooks)
        start = time.perf_counter()
        runner.train()
        total = time.perf_counter() - start
        print_parts(runner, clock.step())
    table = Table(title=f'{runner.max_iters} steps in {total:.1f} s')
    for column in ('hook', 'steps, s', 'validations, s', 'start, end, checkpoints, s', 'share of the training'):
        table.add_column(column, justify='left' if column == 'hook' else 'right')
    for name, stages in [*seconds.items(), ('all', merge(seconds))]:
        steps, evaluations = (sum(stages[stage] for stage in group) for group in (STEPS, EVALUATIONS))
        whole = sum(stages.values())
        cells = (f'{steps:.3f}', f'{evaluations:.2f}', f'{whole - steps - evaluations:.2f}', f'{whole / total:.2%}')
        table.add_row(name, *cells)
    CONSOLE.print(table)


def merge(seconds: dict[str, dict[str, float]]) -> dict[str, float]:
    """Seconds of all hooks by stage."""
    merged = defaultdict(float)
    for stages in seconds.values():
        for stage, value in stages.items():
            merged[stage] += value
    return merged


if __name__ == '__main__':
    main()
