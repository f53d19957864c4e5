"""The folder of a run: never one that holds another run, never one that another run is using."""

import itertools
import re
import shutil
from contextlib import suppress
from glob import escape
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = 'run.lock'

OF_A_START = re.compile(
    r'run\.lock|environment\.txt|[^/]*\.(py|json|ya?ml)|clean/.*|\d{8}_\d{6}/([^/]*\.log|vis_data/(config\.py|events\..*))'
)
"""Files that are there before a run has done anything."""


class RunFolder:
    """A work dir, locked for as long as this object lives.

    Attributes:
        path: the folder; it exists and can be written to.
    """

    def __init__(self, path: Path) -> None:
        """Lock ``path``, which is made where it is missing.

        Raises:
            BlockingIOError: another run is using it.
            OSError: it cannot be written to.
        """
        self.path = path
        self._made = [folder for folder in (path, *path.parents) if not folder.exists()]
        try:
            path.mkdir(parents=True, exist_ok=True)
            self.lock = FileLock(path / LOCK)
            self.lock.acquire(timeout=0)
        except Timeout:
            raise BlockingIOError(
                f'work dir {str(path)!r} is in use by another run; choose another --work-dir'
            ) from None
        except OSError as error:
            raise type(error)(f'work dir {str(path)!r} cannot be written to: {error.strerror or error}') from error

    @classmethod
    def fresh(cls, path: str, overwrite: bool = False) -> 'RunFolder':
        """A folder for a new run: ``path``, or where that holds anything ``path2``, ``path3``, ...

        Args:
            path: the wanted folder.
            overwrite: remove what an earlier run left in ``path`` instead.

        Raises:
            FileExistsError: ``overwrite``, and ``path`` holds something that is no run.
        """
        wanted = Path(path)
        if overwrite:
            if _holds_files(wanted) and not (wanted / LOCK).is_file():
                raise FileExistsError(f'--overwrite: {path!r} holds files but no run; choose another --work-dir')
            folder = cls(wanted)
            for entry in wanted.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                elif entry.name != LOCK:
                    entry.unlink()
            return folder
        numbers = itertools.count(2)
        while True:
            if not _holds_files(wanted):
                with suppress(BlockingIOError):  # another run took it a moment ago
                    return cls(wanted)
            wanted = Path(path).with_name(f'{Path(path).name}{next(numbers)}')

    def leave(self, failed: bool = False) -> None:
        """Give the folder free.

        Args:
            failed: remove it, and folders around it that were made for it, unless it was there before or holds more
                than what a start leaves: any result, picture or checkpoint.
        """
        files = [path.relative_to(self.path).as_posix() for path in self.path.rglob('*') if not path.is_dir()]
        if failed and self._made and all(map(OF_A_START.fullmatch, files)):
            shutil.rmtree(self.path, ignore_errors=True)
            for folder in self._made[1:]:
                with suppress(OSError):  # another run is in it
                    folder.rmdir()
        self.lock.release()

    @classmethod
    def latest(cls, path: str) -> 'RunFolder':
        """The last of ``path``, ``path2``, ``path3``, ... that holds a checkpoint ``last.pth``.

        Raises:
            FileNotFoundError: none does.
        """
        wanted = Path(path)
        runs = {1: wanted}
        for sibling in wanted.parent.glob(f'{escape(wanted.name)}*'):
            number = sibling.name.removeprefix(wanted.name)
            if number.isdecimal():
                runs[int(number)] = sibling
        for _, run in sorted(runs.items(), reverse=True):
            if (run / 'last.pth').is_file():
                return cls(run)
        raise FileNotFoundError(f'--resume: no last.pth in {path!r}, so there is no run to go on with')


def _holds_files(folder: Path) -> bool:
    return folder.exists() and (not folder.is_dir() or any(entry.name != LOCK for entry in folder.iterdir()))
