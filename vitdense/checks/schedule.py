"""Loop, schedules, validations and checkpoints, all counted in epochs or iterations."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from mmengine.config import ConfigDict

from vitdense.registry import bare_type

from .rules import Case, rule
from .run import Run

INF = int(1e9)
"""The end of a schedule that has none, as mmengine writes it."""


class Span(NamedTuple):
    """From where to where a schedule goes, in its own ``unit``, and the length of the training in it."""

    key: str
    node: ConfigDict
    kind: str
    begin: float
    end: float
    total: float
    unit: str


@rule(
    'number of a loop',
    looks_at='`max_epochs`, `max_iters`, `val_interval` and `val_begin` of `train_cfg`',
    expected='a whole number, 1 or more',
)
def numbers(run: Run) -> Iterator[Case]:
    loop = run.split('train').loop if run.trains else {}
    for name in ('max_epochs' if run.by_epoch else 'max_iters', 'val_interval', 'val_begin'):
        value = loop.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 1 or value != int(value):
            yield Case(f'train_cfg.{name}', repr(value))


@rule(
    'validation that is not reached',
    looks_at='`val_begin` and `val_interval` of `train_cfg` against the length of the training',
    expected='validations while there is something left to train',
    fatal=False,
)
def validation(run: Run) -> Iterator[Case]:
    loop, length, unit = run.split('train').loop, run.length, 'epochs' if run.by_epoch else 'iterations'
    if not run.trains or not run.split('val').loader or length is None:
        return
    begin, interval = loop.get('val_begin', 1), loop.get('val_interval', 1 if run.by_epoch else 1000)
    if not all(isinstance(number, int | float) for number in (begin, interval, length)):
        return  # the rule of numbers tells it
    if begin > length:
        yield Case('train_cfg.val_begin', f'{begin}, and training ends after {length} {unit}: none takes place')
    elif interval > length:
        yield Case('train_cfg.val_interval', f'{interval}, and training ends after {length} {unit}: only then is one')
    elif interval == 1 and not run.by_epoch and length > 10:
        yield Case('train_cfg.val_interval', f'1, one after each of {length} iterations: are these epochs?')


@rule(
    'schedule in epochs in a loop of iterations',
    looks_at='`by_epoch` of each `param_scheduler`, and whether `train_cfg` counts iterations',
    expected='by_epoch=False with begin, end, T_max and milestones in iterations: there, an epoch never ends',
)
def units(run: Run) -> Iterator[Case]:
    if not run.trains or run.by_epoch:
        return
    for key, node in run.schedulers:
        kind = bare_type(node)
        if node.get('by_epoch', True) and not node.get('convert_to_iter_based') and 'ReduceOnPlateau' not in kind:
            yield Case(key, f'{kind} goes by epochs, and train_cfg counts iterations: it would never take a step')


@rule(
    'warm-up that outlasts the training',
    looks_at='`begin` and `end` of warm-ups (LinearLR, ConstantLR) against the length of the training',
    expected='a warm-up that ends before the training does',
    remedy='a smaller end of the warm-up, or more epochs',
    fatal=False,
    needs='model',
)
def warm_up(run: Run) -> Iterator[Case]:
    for key, node, kind, begin, end, total, unit in _spans(run):
        first, last = node.get('start_factor', 1 / 3), node.get('end_factor', 1)
        rises = {'Linear': first < last, 'Consta': node.get('factor', 1 / 3) < 1, 'Quadra': True}
        if rises.get(kind[:6]) and begin < total < end:
            yield Case(key, f'{kind} to {end:g} {unit}, and training ends after {total:g}')


@rule(
    'milestones beyond the end',
    looks_at='`milestones` and `step_size` of each `param_scheduler` against the length of the training',
    expected='steps of the learning rate while there is something left to train',
    remedy='scale milestones and end with the length of the training',
    fatal=False,
    needs='model',
)
def milestones(run: Run) -> Iterator[Case]:
    for key, node, kind, begin, _, total, unit in _spans(run):
        marks = list(node.get('milestones') or [])
        marks += [node.step_size + begin] if kind.startswith('Step') and node.get('step_size') else []
        late = [mark for mark in marks if mark >= total]
        if late:
            yield Case(key, f'{kind} at {", ".join(map(str, late))} {unit}, and training ends after {total:g}')


@rule(
    'schedule of another length',
    looks_at='`begin`, `end` and `T_max` of decays (cosine, poly, OneCycle) against the length of the training',
    expected='a decay that ends when the training does',
    remedy='T_max and end of the length of the training',
    fatal=False,
    needs='model',
)
def length(run: Run) -> Iterator[Case]:
    spans = list(_spans(run))
    for span in spans:
        key, node, kind, begin, end, total, unit = span
        if begin >= total:
            yield Case(key, f'{kind} begins after {begin:g} {unit}, and training ends after {total:g}')
            continue
        if not re.match('(CosineAnnealing|Poly|OneCycle)', kind):
            continue
        last = begin + (node.get('T_max') or node.get('total_steps') or end - begin)
        followed = any(other.key != key and other.begin / other.total >= 0.99 * end / total for other in spans)
        if last > 1.01 * total:
            yield Case(key, f'{kind} to {last:g} {unit}, and training ends after {total:g}, before its lowest rate')
        elif last < 0.99 * total and not followed:
            after = 'rises again' if kind.startswith('CosineAnnealing') and end > last else 'stays at its lowest rate'
            yield Case(key, f'{kind} to {last:g} {unit}, and {after} up to the end of training after {total:g}')


@rule(
    'average that never begins',
    looks_at='`begin_iter` and `begin_epoch` of EMAHook against the length of the training',
    expected='a begin before the end of the training; where train_cfg counts iterations, begin_iter',
    needs='model',
)
def average(run: Run) -> Iterator[Case]:
    for key, hook in run.hooks if run.trains else []:
        for name in ('begin_iter', 'begin_epoch') if run.is_a(hook, 'EMAHook') else ():
            total = run.total(name == 'begin_epoch') if run.by_epoch or name == 'begin_iter' else 1
            if total is not None and hook.get(name, 0) > total:
                yield Case(f'{key}.{name}', f'{hook[name]}, and training ends after {total:g}')


@rule(
    'pipeline that is never switched to',
    looks_at='`switch_epoch` of PipelineSwitchHook, `num_last_epochs` of YOLOXModeSwitchHook, and the length of the '
    'training',
    expected='an epoch of the training; where train_cfg counts iterations, no epoch ends',
    fatal=False,
)
def switches(run: Run) -> Iterator[Case]:
    for key, hook in run.hooks if run.trains and run.length is not None else []:
        last = run.length if run.by_epoch else 1
        if run.is_a(hook, 'PipelineSwitchHook') and hook.get('switch_epoch', 0) >= last:
            found, name = str(hook.switch_epoch), 'switch_epoch'
        elif run.is_a(hook, 'YOLOXModeSwitchHook') and hook.get('num_last_epochs', 15) >= last:
            found, name = str(hook.get('num_last_epochs', 15)), 'num_last_epochs'
        else:
            continue
        unit = 'epochs' if run.by_epoch else 'iterations'
        yield Case(f'{key}.{name}', f'{found}, and training ends after {run.length} {unit}')


@rule(
    'checkpoints that are not written',
    looks_at='`interval`, `save_begin`, `save_last`, `max_keep_ckpts` of `default_hooks.checkpoint`',
    expected='checkpoints while the training goes on',
    fatal=False,
    needs='model',
)
def checkpoints(run: Run) -> Iterator[Case]:
    hook = (run.cfg.get('default_hooks') or {}).get('checkpoint')
    if not run.trains or not hook or not run.is_a(hook, 'CheckpointHook'):
        return
    by_epoch = hook.get('by_epoch', True)
    total, unit = run.total(by_epoch), 'epochs' if by_epoch else 'iterations'
    interval, first = hook.get('interval', -1), hook.get('save_begin', 0) + hook.get('interval', -1)
    key = 'default_hooks.checkpoint'
    if interval > 0 and (total is None or first <= total):
        return
    found = f'none is due (interval={interval})' if interval < 1 else f'the first after {first} {unit} of {total:g}'
    if not hook.get('save_last', True):
        yield Case(
            f'{key}.interval',
            f'{found}, and save_last=False: no run could go on',
            remedy=f'--cfg-options {key}.save_last=True',
        )
    elif interval > 0:
        yield Case(f'{key}.interval', f'{found}: one is written at the end alone', remedy=f'a smaller {key}.interval')


def _spans(run: Run) -> Iterator[Span]:
    """The schedules whose length can be compared with that of the training."""
    for key, node in run.schedulers if run.trains else ():
        by_epoch = node.get('by_epoch', True)
        total = run.total(by_epoch)
        if total is None or (by_epoch and not run.by_epoch and not node.get('convert_to_iter_based')):
            continue
        end = node.get('end', total)
        unit = 'epochs' if by_epoch else 'iterations'
        yield Span(key, node, bare_type(node), node.get('begin', 0), total if end >= INF else end, total, unit)
