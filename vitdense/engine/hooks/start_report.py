"""What a run starts with, in some fifteen lines."""

import platform
from collections import defaultdict
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import IterBasedTrainLoop, Runner
from rich.cells import cell_len, set_cell_size

from vitdense.console import say
from vitdense.datasets.scan import SplitReport
from vitdense.engine.log_processor import batch_size
from vitdense.files import replacing
from vitdense.findings import by_kind
from vitdense.models.wrappers import unwrap_model
from vitdense.names import counted
from vitdense.registry import HOOKS
from vitdense.version import __version__
from vitdense.visualization.plots import draw_label_histogram


@HOOKS.register_module()
class StartReportHook(Hook):
    """Versions and device, data, model, weights, optimizer and batch size, before the first step.

    Args:
        most_classes: rows of the class table; of more classes the most frequent and the rarest are shown.
    """

    priority = 'LOWEST'

    def __init__(self, most_classes: int = 8) -> None:
        self.most_classes = most_classes

    def before_train(self, runner: Runner) -> None:
        if is_main_process():
            for line in self.lines(runner):
                say(line)
            draw_labels(getattr(runner, 'data_reports', []), Path(runner.work_dir, 'labels.png'))

    def lines(self, runner: Runner) -> Iterator[str]:
        """The report, line by line."""
        yield versions()
        yield f'device     {device()}'
        reports = getattr(runner, 'data_reports', [])
        for report in reports:
            yield from data_lines(report)
        yield from class_table(reports, self.most_classes)
        yield f'model      {model_line(runner)}'
        yield f'weights    {weights_line(runner)}'
        for line in optimizer_lines(runner.optim_wrapper):
            yield f'optimizer  {line}'
        yield f'batch      {batch_line(runner)}'
        yield f'schedule   {schedule_line(runner)}'
        yield f'run        {runner.work_dir} (config, environment.txt, log)'


def versions() -> str:
    """vitdense, Python, torch and the OpenMMLab packages that are installed."""
    packages = [name for name in ('torch', 'mmengine', 'mmcv', 'mmdet', 'mmseg') if find_spec(name)]
    others = ', '.join(f'{name} {import_module(name).__version__}' for name in packages)
    return f'vitdense {__version__} (Python {platform.python_version()}, {others})'


def device() -> str:
    """The devices of all processes."""
    processes = get_world_size()
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory / 2**30
        return f'{processes} x {torch.cuda.get_device_name()}, {memory:.0f} GB'
    shares = f'{processes} processes of ' if processes > 1 else ''
    return f'CPU, {shares}{counted(torch.get_num_threads(), "thread")}'


def data_lines(report: SplitReport) -> Iterator[str]:
    """Counts of one split, and what is remarkable about it."""
    instances = sum(count for _, count in report.per_class.values())
    parts = [f'{report.images} images', f'{instances} instances'] if instances else [f'{report.images} images']
    parts.append(f'{len(report.classes)} classes')
    if report.note:
        parts.append(report.note)
    elif report.opened:
        parts.append(f'{report.opened} files checked{" before" if report.cached else ""}')
    yield f'data       {report.key.split("_")[0]}: {", ".join(parts)}'
    for kind, cases in by_kind([finding for finding in report.findings if not finding.fatal]).items():
        yield f'remark     {kind}: {len(cases)}, first {cases[0].where}: {cases[0].found}'


def class_table(reports: Sequence[SplitReport], most: int) -> Iterator[str]:
    """Images and instances of each class, a column a split."""
    counted = [report for report in reports if report.per_class]
    if not counted:
        return
    names = sorted(counted[0].per_class, key=lambda name: [-count for count in counted[0].per_class[name][::-1]])
    shown = names if len(names) <= most else [*names[: most // 2], '...', *names[-(most // 2) :]]
    width = max(map(cell_len, shown))
    has_instances = any(count for report in counted for _, count in report.per_class.values())

    def row(cells: Sequence[tuple]) -> str:
        return ''.join(f'  {images:>14}' + (f' {count:>10}' if has_instances else '') for images, count in cells)

    yield f'classes    {"":{width}}' + row([(f'{report.key.split("_")[0]} images', 'instances') for report in counted])
    for name in shown:
        cells = [report.per_class.get(name, (0, 0)) if name != '...' else ('', '') for report in counted]
        yield f'           {set_cell_size(name, width)}' + row(cells)


def draw_labels(reports: Sequence[SplitReport], path: Path) -> None:
    """Write the histogram of the labels; semantic maps have no instances, only images with a class."""
    counts = {report.key.split('_')[0]: report.per_class for report in reports if report.per_class}
    if not counts:
        return
    what = 'objects'
    if not any(instances for classes in counts.values() for _, instances in classes.values()):
        what = 'images'
        counts = {split: {name: (n, n) for name, (n, _) in classes.items()} for split, classes in counts.items()}
    with replacing(path) as part:
        draw_label_histogram(counts, what).savefig(part)


def model_line(runner: Runner) -> str:
    """Type, parts and size of the model."""
    model = unwrap_model(runner.model)
    parts = [type(part).__name__ for name, part in model.named_children() if name != 'data_preprocessor']
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    share = 'all trained' if trained == total else f'{trained / 1e6:.2f} M trained'
    return f'{type(model).__name__} ({", ".join(parts)}), {total / 1e6:.2f} M parameters, {share}'


def weights_line(runner: Runner) -> str:
    """Where the training starts from."""
    if runner._load_from:
        return f'{"resumed" if runner._resume else "loaded"} from {runner._load_from}'
    model = runner.cfg.get('model', {})
    backbone = model.get('backbone') or {}
    source = (backbone.get('init_cfg') or {}).get('checkpoint') or backbone.get('pretrained') or model.get('pretrained')
    return f'backbone from {source}, the rest random' if source else 'random'


def optimizer_lines(wrapper: OptimWrapper | dict) -> Iterator[str]:
    """Parameters by learning rate and weight decay; mmengine makes a group of every parameter."""
    wrappers = {'': wrapper} if isinstance(wrapper, OptimWrapper) else dict(wrapper.items())
    for name, one in wrappers.items():
        groups: dict[tuple[float, float], list[int]] = defaultdict(list)
        for group in one.optimizer.param_groups:
            rates = group.get('initial_lr', group['lr']), group.get('weight_decay', 0.0)
            groups[rates] += [p.numel() for p in group['params'] if p.requires_grad]
        kind = f'{name} {type(one.optimizer).__name__}'.strip()
        described = [
            f'lr {lr:g}, decay {decay:g}: {sum(sizes) / 1e6:.2f} M in {len(sizes)} tensors'
            for (lr, decay), sizes in groups.items()
            if sizes
        ]
        shown = described if len(described) <= 4 else [*described[:3], f'{len(described) - 3} more groups']
        yield f'{kind}; ' + '; '.join(shown)


def batch_line(runner: Runner) -> str:
    """Images of an optimizer step, against the number that the learning rate was chosen for."""
    wrapper = runner.optim_wrapper
    each, processes = batch_size(runner.train_dataloader), get_world_size()
    steps = getattr(wrapper, '_accumulative_counts', 1)
    batch = each * processes * steps
    shares = [f'{n} {what}' for n, what in ((processes, 'processes'), (steps, 'accumulated')) if n > 1]
    line = f'{counted(batch, "image")} a step' + (f' ({" x ".join([str(each), *shares])})' if shares else '')
    recipe = runner.auto_scale_lr or {}
    base = recipe.get('base_batch_size')
    if base is None:
        return line
    if recipe.get('enable') and batch != base:
        return f'{line}, the recipe has {base}: learning rate scaled by {batch / base:g}'
    return f"{line}, the recipe's" if base == batch else f'{line}, the recipe has {base}'


def schedule_line(runner: Runner) -> str:
    """Length of the training, and the validations in it."""
    steps = len(runner.train_dataloader)
    if isinstance(runner.train_loop, IterBasedTrainLoop):
        line = counted(runner.max_iters, 'step')
    else:
        line = f'{counted(runner.max_epochs, "epoch")} of {counted(steps, "step")}'
    if runner.iter >= runner.max_iters:
        return f'{line}, which the resumed run has done: nothing is left to train'
    if runner._val_loop is None:
        return f'{line}, no validation'
    return f'{line}, validation every {runner.train_loop.val_interval}'
