"""What ended a training that no check could foresee: what to do about it, and where the run goes on."""

import re
import signal
import threading
from pathlib import Path

import torch
from mmengine.runner import BaseLoop, Runner

from vitdense.datasets.named_errors import pipelines
from vitdense.engine.hooks.recent_batches import RecentBatchesHook
from vitdense.names import listed

MEMORY = re.compile(r"out of memory|can't allocate memory|cannot allocate memory|ALLOC_FAILED", re.IGNORECASE)
ENDED = re.compile(r'DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)')
LATE = re.compile(r'DataLoader timed out after (\S+) seconds')


class OutOfMemory(RuntimeError):
    """The memory of the device or of the machine does not suffice for a step."""


class LoadingError(RuntimeError):
    """A process that loads data ended or hangs."""


def explained(error: BaseException, runner: Runner) -> Exception | None:
    """What can be done about an ``error`` that ended the training; ``None`` where it says itself all that is known."""
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and MEMORY.search(text)
    ):
        return OutOfMemory(f'{_out_of_memory(error, runner)}\n  {goes_on(runner)}')
    if isinstance(error, RuntimeError) and (match := LATE.search(text) or ENDED.search(text)):
        _raise_no_more()
        return LoadingError(f'{_loading(match, text, runner)}\n  {goes_on(runner)}')
    return None


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


def _loading(match: re.Match, text: str, runner: Runner) -> str:
    loops = [loop for loop in (runner._train_loop, runner._val_loop) if isinstance(loop, BaseLoop)]
    notes = {
        id(one.at_hand): one.at_hand for loop in loops for one in pipelines(loop.dataloader.dataset) if one.at_hand
    }
    images = {process: image for at_hand in notes.values() for process, image in at_hand.images().items()}
    if match.re is LATE:
        longest = sorted(images.values(), key=lambda one: -one[1])
        at_hand = [f'{name} (for {seconds:.0f} s)' for name, seconds in longest]
        where = f'; at hand: {listed(at_hand, 4)}' if at_hand else ''
        return (
            f'no batch within {match[1]} seconds: a process that loads data hangs{where}. A slow disk may need '
            '--cfg-options train_dataloader.timeout=3600'
        )
    ended = [int(number) for number in re.findall(r'\d+', match[1])]
    name = next((images[number][0] for number in ended if number in images), None)
    reason = text.partition('signal: ')[2].partition('.')[0]
    why = f' (signal: {reason})' if reason else ''
    hint = '; the system kills the largest process when memory is short: fewer train_dataloader.num_workers need less'
    return f'a process that loads data ended{why}' + (f' at {name}' if name else '') + hint * (reason in ('', 'Killed'))
