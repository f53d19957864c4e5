"""Image files with the same content."""

from collections import defaultdict
from collections.abc import Sequence

from .pictures import Picture
from .report import Finding


def same_pictures(pictures: Sequence[Picture]) -> list[Finding]:
    """A remark for each picture whose content another file before it has."""
    files: dict[str, dict[str, None]] = defaultdict(dict)
    for picture in pictures:
        if not picture.error:
            files[picture.digest].setdefault(picture.path)
    return [
        Finding('same picture twice', other, f'the content is that of {paths[0]}', False)
        for paths in map(list, files.values())
        for other in paths[1:]
    ]
