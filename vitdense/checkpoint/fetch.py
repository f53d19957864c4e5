"""Where a checkpoint is: a release, a URL or a path."""

import re
from pathlib import Path
from urllib.parse import urlparse

import torch
from filelock import FileLock

from vitdense.checkpoint.layouts import RELEASES
from vitdense.checkpoint.read import UnfitError, reader_of
from vitdense.files import checkpoints_in, replacing
from vitdense.names import nearest

HASH = re.compile(r'-(?!20\d{6}\.)([0-9a-f]{8,})\.')
"""The start of its SHA-256 in the name of a file, as ``torch.hub`` has it; eight digits from 20 on are a date."""


def fetch(checkpoint: str) -> Path:
    """Local path of a checkpoint; downloads at most once, also with several processes.

    Args:
        checkpoint: a key of ``RELEASES``, a path, or a URL. Downloads are kept in ``torch.hub.get_dir()/checkpoints``;
            where the file name has a hash, as in ``detr-r50-e632da11.pth``, the content has to have it, too.

    Raises:
        FileNotFoundError: no such file; the message lists the checkpoints beside it or the releases, nearest first.
        ValueError: a folder, a URL without a file name, or one of another scheme.
        ConnectionError: the download failed, or what came is no file of weights; the message says which file to fetch
            and where to put it. Nothing is left behind.
    """
    url = RELEASES.get(str(checkpoint), str(checkpoint))
    if urlparse(url).scheme not in ('http', 'https'):
        place = url.removeprefix('file://')
        if '://' in place:
            raise ValueError(f'checkpoint {url}: expected a path, a URL of http or https, or the name of a release')
        return _existing(Path(place).expanduser())
    name = _file_name(url)
    path = Path(torch.hub.get_dir()) / 'checkpoints' / name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f'{path}.lock'):
            if not path.is_file():
                _download(url, path)
    return path


def _file_name(url: str) -> str:
    """Under which a download is kept. On the hub of Hugging Face, all files have one name; there it is the model's."""
    *folders, name = urlparse(url).path.split('/')
    if not name:
        raise ValueError(f'checkpoint {url} is a folder, expected the URL of a file')
    if urlparse(url).hostname == 'huggingface.co' and len(folders) > 2:
        return f'{folders[2]}_{name}'
    return name


def _existing(path: Path) -> Path:
    if path.is_file():
        return path
    if path.is_dir():
        raise ValueError(f'checkpoint {path} is a folder, expected a file{checkpoints_in(path, path.name)}')
    bare = len(path.parts) == 1
    hint = checkpoints_in(path.absolute().parent, path.name)
    if bare:
        hint += f'; official releases, nearest first: {", ".join(nearest(path.stem, RELEASES)[:4])}, ...'
    elif 'work_dirs' in path.parts and not hint:
        hint = f'; the run {path.parent.name!r} writes it and has to come first'
    raise FileNotFoundError(f'no checkpoint file {str(path if bare else path.absolute())!r}{hint}')


def _download(url: str, path: Path) -> None:
    """Nothing appears at ``path`` before it is whole."""
    known = HASH.search(path.name)
    try:
        with replacing(path) as part:
            torch.hub.download_url_to_file(url, str(part), hash_prefix=known and known[1])
            reader_of(part)
    except Exception as error:
        found = f'what came {error}' if isinstance(error, UnfitError) else error
        raise ConnectionError(
            f'could not download {url} ({found}).\nFetch that file on a machine with internet access and put it at '
            f'{path}, or name its path in init_cfg.checkpoint of the backbone, or train from scratch with '
            '--no-pretrained.'
        ) from error
