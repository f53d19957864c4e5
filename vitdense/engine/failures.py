"""What ended a training that no check could foresee: what to do about it, and where the run goes on."""

import multiprocessing
import re
import signal
import threading
from collections.abc import Collection, Iterator
from multiprocessing import connection
from pathlib import Path

import torch
from mmengine.runner import BaseLoop, Runner

from vitdense.datasets.named_errors import pipelines
from vitdense.engine.hooks.recent_batches import RecentBatchesHook
from vitdense.names import listed

MEMORY = re.compile(r"out of memory|can't allocate memory|cannot allocate memory|ALLOC_FAILED", re.IGNORECASE)
ENDED = re.compile(r'DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)')
GRACE = 2
"""Seconds that a process may take to end, once its connections are closed."""
LATE = re.compile(r'DataLoader timed out after (\S+) seconds')


class OutOfMemory(RuntimeError):
    """The memory of the device or of the machine does not suffice for a step."""


class LoadingError(RuntimeError):
    """A process that loads data ended or hangs."""


def explained(error: BaseException, runner: Runner) -> Exception | None:
    """What can be done about an ``error`` that ended the training; ``None`` where it says itself all that is known."""
    _raise_no_more()
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and MEMORY.search(text)
    ):
        return OutOfMemory(f'{_out_of_memory(error, runner)}\n  {goes_on(runner)}')
    said = _loading(error, runner)
    if said:
        return LoadingError(f'{said}\n  {goes_on(runner)}')
    return None


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
    """Where a run that ended early goes on, as a sentence."""
    last = Path(runner.work_dir, 'last.pth')
    return f'{last} is there: --resume goes on from it' if last.is_file() else 'no checkpoint was saved so far'


def _out_of_memory(error: BaseException, runner: Runner) -> str:
    batches = next((list(hook.batches) for hook in runner.hooks if isinstance(hook, RecentBatchesHook)), [])
    said = str(error).strip().partition('\n')[0].partition('. GPU')[0] or type(error).__name__
    lines = [f'out of memory in iteration {runner.iter + 1}: {said}']
    if batches:
        about = f'the batch at hand is that of {batches[-1]}'
        largest = max(batches, key=lambda batch: batch.pixels)
        if largest is not batches[-1]:
            about += f'; the largest of the last {len(batches)} is that of {largest}'
        lines.append(about)
    size = batches[-1].size[0] if batches else 1
    less = f'train_dataloader.batch_size={size // 2} ' if size > 1 else ''
    accumulate = 'optim_wrapper.accumulative_counts=2 ' if less else ''
    lines.append(
        f'what takes less: --cfg-options {less}{accumulate}model.backbone.with_cp=True, --amp, smaller images in the '
        'pipeline, a smaller backbone'
    )
    return '\n  '.join(lines)


def _loading(error: BaseException, runner: Runner) -> str:
    """What a process that loads data did and where, empty where the error is of something else."""
    images = _at_hand(runner)
    for one in _chain(error):
        if isinstance(one, ConnectionError | EOFError):  # while it handed over a batch
            if gone := _gone(images):
                return _ended(gone, '', images)
        elif isinstance(one, RuntimeError) and (match := ENDED.search(str(one))):
            reason = str(one).partition('signal: ')[2].partition('.')[0]
            return _ended([int(number) for number in re.findall(r'\d+', match[1])], reason, images)
        elif isinstance(one, RuntimeError) and (match := LATE.search(str(one))):
            longest = sorted(images.values(), key=lambda one: -one[1])
            at_hand = [f'{name} (for {seconds:.0f} s)' for name, seconds in longest]
            where = f'; at hand: {listed(at_hand, 4)}' if at_hand else ''
            return (
                f'no batch within {match[1]} seconds: a process that loads data hangs{where}. A slow disk may need '
                '--cfg-options train_dataloader.timeout=3600'
            )
    return ''


def _at_hand(runner: Runner) -> dict[int, tuple[str, float]]:
    """The image that each process is at, and for how many seconds."""
    loops = [loop for loop in (runner._train_loop, runner._val_loop) if isinstance(loop, BaseLoop)]
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


def _ended(processes: list[int], reason: str, images: dict[int, tuple[str, float]]) -> str:
    why = f' (signal: {reason})' if reason else ''
    name = next((f' at {images[number][0]}' for number in processes if number in images), '')
    hint = '; the system kills the largest process when memory is short: fewer train_dataloader.num_workers need less'
    return f'a process that loads data ended{why}{name}{hint * (reason in ("", "Killed"))}'
