"""Which checkpoint a run goes on from: the newest that is whole, of this run."""

import argparse
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from vitdense.checkpoint.read import AGAIN, read
from vitdense.engine.hooks.checkpoint import LAST
from vitdense.engine.run_folder import RESUMABLE
from vitdense.untrusted.pickles import check_pickle


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that a run can go on from.

    Attributes:
        path: the file.
        meta: what it says about the run.
        passed: why newer ones were not taken, a line each.
    """

    path: Path
    meta: Mapping[str, Any]
    passed: tuple[str, ...] = ()

    @property
    def iteration(self) -> int:
        """Iterations done."""
        return int(self.meta['iter'])


def candidates(folder: Path) -> list[Path]:
    """Checkpoints in the folder of a run with all that it needs to go on, the newest first, each file once.

    Those that cannot be read are before all others.
    """
    files: dict[tuple[int, int], Path] = {}
    for name in RESUMABLE:
        for path in sorted(folder.glob(name)):
            if path.is_file():
                files.setdefault((path.stat().st_dev, path.stat().st_ino), path)
    return sorted(files.values(), key=_saved, reverse=True)


def _saved(path: Path) -> tuple[str, int]:
    """When a checkpoint says to have been saved, and after how many iterations; after all others if it is not readable.

    A run may have gone back to an earlier checkpoint, and the times of files change when they are copied.
    """
    try:
        check_pickle(io.BytesIO(torch._C.PyTorchFileReader(str(path)).get_record('data.pkl')))
        with torch.serialization.safe_globals([argparse.Namespace]):
            meta = torch.load(path, map_location='cpu', weights_only=True, mmap=True)['meta']
        return str(meta['time']), int(meta['iter'])
    except Exception:  # whatever PyTorch makes of a damaged file; it is read again, and described
        return '~', 0


def whole(path: Path) -> Checkpoint:
    """Read a checkpoint that a run is to go on from.

    Raises:
        OSError, ValueError: it is damaged, or weights alone; one line says what.
    """
    found = path.stat()
    return _whole(path, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=1)
def _whole(path: Path, *state: int) -> Checkpoint:
    content = read(path)
    check_resumable(path, content)
    return Checkpoint(path, content['meta'])


def check_resumable(path: Path, content: Mapping[str, Any]) -> None:
    """Look whether a checkpoint holds the state of a run.

    Raises:
        ValueError: weights alone, or no optimizer.
    """
    meta = content.get('meta')
    if not isinstance(meta, Mapping) or not all(type(meta.get(key)) is int for key in ('epoch', 'iter')):
        raise ValueError(f'checkpoint {path} holds weights and no state of a run; --cfg-options load_from={path}')
    if 'optimizer' not in content or 'message_hub' not in content:
        raise ValueError(
            f'checkpoint {path} holds no state of the optimizer, as the best ones do not: --resume '
            f'{path.with_name(LAST)} goes on from the last one, --cfg-options load_from={path} begins anew with the '
            'weights'
        )


def newest(folder: Path, run: str | None = None) -> Checkpoint:
    """The newest checkpoint in the folder of a run that is whole.

    Args:
        folder: of the run.
        run: what the run is called in its checkpoints; those of others are passed over.

    Raises:
        ValueError: there is none; the message says why, a line for each file.
    """
    passed = [] if (folder / LAST).exists() else [f'{LAST} is missing']
    for path in candidates(folder):
        try:
            found = whole(path)
        except (OSError, ValueError) as error:
            reason = str(error).removeprefix('checkpoint ').replace(str(path), path.name)
            passed.append(reason.removesuffix(f'; {AGAIN}'))
            continue
        if not run or found.meta.get('run') in (None, run):
            return Checkpoint(path, found.meta, tuple(passed))
        passed.append(f'{path.name} is of another run')
    raise ValueError(f'--resume: no whole checkpoint in {folder}: {"; ".join(passed)}')


def put_aside(folder: Path, taken: Path) -> None:
    """Rename a ``last.pth`` that is not taken: the next checkpoint would make it ``previous.pth``."""
    last = folder / LAST
    if last.is_file() and not last.samefile(taken):
        last.replace(folder / 'unused.pth')
