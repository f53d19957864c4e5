"""The folder of a run: never one that holds another run, never one that another run is using."""

import itertools
import shutil
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = 'run.lock'


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

    @classmethod
    def latest(cls, path: str) -> 'RunFolder':
        """The last of ``path``, ``path2``, ``path3``, ... that holds a checkpoint ``last.pth``.

        Raises:
            FileNotFoundError: none does.
        """
        wanted = Path(path)
        runs = {1: wanted}
        for sibling in wanted.parent.glob(f'{wanted.name}*'):
            number = sibling.name.removeprefix(wanted.name)
            if number.isdecimal():
                runs[int(number)] = sibling
        for _, run in sorted(runs.items(), reverse=True):
            if (run / 'last.pth').is_file():
                return cls(run)
        raise FileNotFoundError(f'--resume: no last.pth in {path!r}, so there is no run to go on with')


def _holds_files(folder: Path) -> bool:
    return folder.exists() and (not folder.is_dir() or any(entry.name != LOCK for entry in folder.iterdir()))
