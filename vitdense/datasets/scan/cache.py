"""Results of scans, kept by the content of what was scanned."""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict

from vitdense.files import cache_folder, replacing
from vitdense.untrusted.files import read_regular

from .report import SplitReport

VERSION = 6
"""Of the checks: to be raised when they find something else in the same files."""


def cache_key(content: bytes, settings: dict) -> str:
    """Of an annotation file, or list of names, and of everything else that the findings depend on."""
    digest = hashlib.sha256(content)
    digest.update(json.dumps([VERSION, settings], sort_keys=True, default=str).encode())
    return digest.hexdigest()


def stamp(path: str) -> list[int]:
    """Size and time of change of a file or folder; empty where there is none."""
    try:
        stat = os.stat(path or '.')
    except OSError:
        return []
    return [stat.st_size, stat.st_mtime_ns]


def load(key: str) -> SplitReport | None:
    """The report of an earlier scan, if what it rests on has not changed since."""
    try:
        content = json.loads(read_regular(cache_folder('scan') / f'{key}.json'))
        report = SplitReport.from_json(content['report'])
        same = all(stamp(path) == then for path, then in content['stamps'].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    report.cached = True
    return report if same else None


def store(key: str, report: SplitReport, paths: Iterable[str]) -> None:
    """Keep a report until a file or folder at ``paths`` changes. A cache that cannot be written is done without."""
    folder = cache_folder('scan')
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / f'{key}.json') as part:
            part.write_text(json.dumps({'report': asdict(report), 'stamps': {path: stamp(path) for path in paths}}))
    except OSError:
        return
