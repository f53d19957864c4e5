"""What ended a run that no check could foresee: what to do about it, and where a training goes on."""

import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from multiprocessing import connection
from pathlib import Path

import torch
from mmengine.runner import BaseLoop, Runner

from vitdense.datasets.named_errors import TransformError, pipelines
from vitdense.datasets.scan.maps import IGNORED
from vitdense.engine.hooks.recent_batches import RecentBatchesHook
from vitdense.files import REASONS
from vitdense.models.backbones.base import Backbone
from vitdense.models.heads.detr_transformer import Encoder
from vitdense.models.wrappers import unwrap_model
from vitdense.names import listed

MEMORY = re.compile(r"out of memory|can't allocate memory|cannot allocate memory|ALLOC_FAILED", re.IGNORECASE)
ENDED = re.compile(r'DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)')
OF_PROCESS = 'in DataLoader worker process'
"""What PyTorch says of an error that another process has handed over, with the traceback from there."""
LABEL = re.compile(r'Target -?\d+ is out of bounds|device-side assert')
"""What PyTorch says of a label without a class, on CPUs and GPUs."""
GRACE = 2
"""Seconds that a process may take to end, once its connections are closed."""
LATE = re.compile(r'DataLoader timed out after (\S+) seconds')


class OutOfMemory(RuntimeError):
    """The memory of the device or of the machine does not suffice for a step."""


class LoadingError(RuntimeError):
    """A process that loads data ended or hangs."""


class LabelError(ValueError):
    """A semantic map has labels without a class."""


@contextmanager
def explaining(runner: Runner) -> Iterator[None]:
    """Around a training or an evaluation.

    Raises:
        OutOfMemory, LoadingError, TransformError, LabelError, OSError: with what to do about it.
    """
    try:
        yield
    except Exception as error:
        if failure := explained(error, runner):
            raise failure from error
        raise


def explained(error: BaseException, runner: Runner) -> Exception | None:
    """What can be done about an ``error`` that ended a run; ``None`` where it says itself all that is known."""
    _raise_no_more()
    text = str(error)
    if isinstance(error, TransformError) and OF_PROCESS in text:
        return TransformError(text.rpartition(f'{TransformError.__name__}: ')[2].rstrip())
    if isinstance(error, OSError) and error.errno in REASONS and error.strerror == os.strerror(error.errno):
        where = error.filename or f'a file in {runner.work_dir}'
        return OSError(error.errno, f'{REASONS[error.errno]}: {where} was not written{goes_on(runner)}')
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and MEMORY.search(text)
    ):
        return OutOfMemory(_out_of_memory(error, runner) + goes_on(runner))
    said = _loading(error, runner)
    if said:
        return LoadingError(said + goes_on(runner))
    if LABEL.search(text) and (found := _no_classes(runner)):
        return LabelError(found + goes_on(runner))
    return None


def _no_classes(runner: Runner) -> str:
    """The map of the batch at hand that has labels without a class, and which; empty if there is none."""
    dataset = runner.train_dataloader.dataset
    number = len((getattr(dataset, 'metainfo', None) or {}).get('classes') or ())
    for sample in _recent(runner).samples if number else ():
        if 'gt_sem_seg' in sample:
            labels = sample.gt_sem_seg.data.unique().tolist()
            if wrong := [label for label in labels if not 0 <= label < number and label != IGNORED]:
                path = sample.metainfo.get('seg_map_path') or sample.metainfo.get('img_path')
                return (
                    f'iteration {runner.iter + 1}: {path} has the labels {listed(wrong, 8)}, expected 0 to {number - 1}'
                    f' or {IGNORED}, which is none; tools/check.py CONFIG --check full looks at all maps'
                )
    return ''


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those behind it: the end of a process raises one anywhere, and what it interrupts may raise more."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _raise_no_more() -> None:
    """Take back PyTorch's handler, which raises again, anywhere, whenever another process ends."""
    if threading.current_thread() is threading.main_thread() and hasattr(signal, 'SIGCHLD'):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def goes_on(runner: Runner) -> str:
    """Where a training that ended early goes on, as a line after others; an evaluation alone begins again."""
    if not isinstance(runner._train_loop, BaseLoop):
        return ''
    last = Path(runner.work_dir, 'last.pth')
    return f'\n  {last} is there: --resume goes on from it' if last.is_file() else '\n  no checkpoint was saved so far'


def _recent(runner: Runner) -> RecentBatchesHook:
    """What the run was at; of a run without this hook, nothing is known."""
    return next((hook for hook in runner.hooks if isinstance(hook, RecentBatchesHook)), RecentBatchesHook())


def _out_of_memory(error: BaseException, runner: Runner) -> str:
    recent = _recent(runner)
    batches, split = list(recent.batches), recent.split
    said = str(error).strip().partition('\n')[0].partition('. GPU')[0] or type(error).__name__
    place = f'iteration {runner.iter + 1}' if split == 'train' else f'an evaluation of the {split} set'
    lines = [f'out of memory in {place}: {said}']
    if batches:
        about = f'the batch at hand is that of {batches[-1]}'
        largest = max(batches, key=lambda batch: batch.pixels)
        if largest is not batches[-1]:
            about += f'; the largest of the last {len(batches)} is that of {largest}'
        lines.append(about)
    size = batches[-1].size[0] if batches else 1
    options = [f'{split}_dataloader.batch_size={size // 2}'] if size > 1 else []
    if split == 'train':
        options += ['optim_wrapper.accumulative_counts=2'] if options else []
        options += [text] if (text := _checkpointing(runner)) else []
    less = f'--cfg-options {" ".join(options)}, ' if options else ''
    less += '--amp, ' if split == 'train' else ''
    lines.append(f'what takes less: {less}smaller images in the pipeline, a smaller backbone')
    return '\n  '.join(lines)


def _checkpointing(runner: Runner) -> str:
    """The next amount of ``with_cp`` for each part of the model that can take more of it, as options, and the last."""
    options, further = {}, False
    for name, module in unwrap_model(runner.model).named_modules():
        amount = getattr(module, 'with_cp', True)
        if amount is True:
            continue
        node, key = runner.cfg.get('model'), 'model'
        for part in name.split('.'):  # as far as the config goes: the argument of a head may be kept by its encoder
            if not isinstance(node, dict) or not isinstance(node.get(part), dict):
                break
            node, key = node[part], f'{key}.{part}'
        if key != 'model':
            ours = isinstance(module, Backbone | Encoder)
            options[key] = 'light' if ours and not amount else 'True'
            further |= options[key] == 'light'
    text = ' '.join(f'{key}.with_cp={value}' for key, value in options.items())
    return f'{text}, then with_cp=True' if further else text


def _loading(error: BaseException, runner: Runner) -> str:
    """What a process that loads data did and where, empty where the error is of something else."""
    images, split = _at_hand(runner), _recent(runner).split
    for one in _chain(error):
        if isinstance(one, ConnectionError | EOFError):  # while it handed over a batch
            if gone := _gone(images):
                return _ended(gone, '', images, split)
        elif isinstance(one, RuntimeError) and (match := ENDED.search(str(one))):
            reason = str(one).partition('signal: ')[2].partition('.')[0]
            return _ended([int(number) for number in re.findall(r'\d+', match[1])], reason, images, split)
        elif isinstance(one, RuntimeError) and (match := LATE.search(str(one))):
            longest = sorted(images.values(), key=lambda one: -one[1])
            at_hand = [f'{name} (for {seconds:.0f} s)' for name, seconds in longest]
            where = f'; at hand: {listed(at_hand, 4)}' if at_hand else ''
            return (
                f'no batch within {match[1]} seconds: a process that loads data hangs{where}. A slow disk may need '
                f'--cfg-options {split}_dataloader.timeout=3600'
            )
    return ''


def _at_hand(runner: Runner) -> dict[int, tuple[str, float]]:
    """The image that each process is at, and for how many seconds."""
    loops = [loop for loop in (runner._train_loop, runner._val_loop, runner._test_loop) if isinstance(loop, BaseLoop)]
    notes = {
        id(one.at_hand): one.at_hand for loop in loops for one in pipelines(loop.dataloader.dataset) if one.at_hand
    }
    return {process: image for at_hand in notes.values() for process, image in at_hand.images().items()}


def _gone(processes: Collection[int]) -> list[int]:
    """Those that have ended, or do so in a moment."""
    children = [child for child in multiprocessing.active_children() if child.pid in processes]
    closed = connection.wait([child.sentinel for child in children], GRACE) if children else []
    for child in children:
        if child.sentinel in closed:
            child.join()  # it closes its files some time before it is gone
    alive = {child.pid for child in multiprocessing.active_children()}
    return [number for number in processes if number not in alive]


def _ended(processes: list[int], reason: str, images: dict[int, tuple[str, float]], split: str) -> str:
    why = f' (signal: {reason})' if reason else ''
    name = next((f' at {images[number][0]}' for number in processes if number in images), '')
    hint = (
        f'; the system kills the largest process when memory is short: fewer {split}_dataloader.num_workers need less'
    )
    return f'a process that loads data ended{why}{name}{hint * (reason in ("", "Killed"))}'
