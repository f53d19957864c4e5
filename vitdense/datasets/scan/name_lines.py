"""Lines of a list of names whose file is not there."""

import os
from collections.abc import Callable

from mmengine.fileio import list_from_file
from torchvision.datasets.folder import IMG_EXTENSIONS

SUFFIXES = (*IMG_EXTENSIONS, '.xml')
MARK = '\ufeff'


def name_lines(path: str | None, number: int) -> list[str]:
    """Lines of the list of names at ``path``; empty where it is no file, or has not one line for each of ``number``
    entries.
    """
    lines = list_from_file(path) if os.path.isfile(path or '') else []
    return lines if len(lines) == number else []


def line_fault(line: str, folder: str, suffix: str) -> str:
    """Why ``folder`` has no file of the name in a line of a list, or '' where that is not known.

    Args:
        line: without its end.
        suffix: what the data set adds to the name.
    """
    if not line.strip():
        return 'the line is blank' if not line else f'the line has nothing but blanks ({line!r})'
    for steps in (STEPS, (FIRST_WORD, *STEPS), (FIRST_WORD, *STEPS, FOLDER), (*STEPS, FOLDER)):
        name, told = line, []
        for what, change in steps:
            changed = change(name)
            if changed != name:
                name = changed
                told.append(what)
                if os.path.isfile(os.path.join(folder, name + suffix)):
                    return f'{line!r} has {" and ".join(told)}; the name is {name!r}'
    return ''


def _without_suffix(name: str) -> str:
    stem, end = os.path.splitext(name)
    return stem if end.lower() in SUFFIXES else name


Step = tuple[str, Callable[[str], str]]
STEPS: tuple[Step, ...] = (
    ('a byte order mark', lambda name: name.removeprefix(MARK)),
    ('blanks around the name', str.strip),
    ('backslashes', lambda name: name.replace('\\', '/')),
    ('a suffix', _without_suffix),
)
FIRST_WORD: Step = ('more than a name', lambda name: (name.split() or [''])[0])
FOLDER: Step = ('a folder', os.path.basename)
