"""What is wrong with an XML file of Pascal VOC."""

from collections.abc import Collection, Iterator
from xml.etree import ElementTree

SIDES = ('xmin', 'ymin', 'xmax', 'ymax')


def xml_faults(path: str, classes: Collection[str], needs_folder: bool = False) -> list[str]:
    """All that keeps mmdet from reading a file.

    Args:
        classes: names of the objects that are read.
        needs_folder: whether the folder of the image and the size have to be in the file, as for WIDER Face.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except OSError as error:
        return [f'cannot be read: {error.strerror}']
    except ElementTree.ParseError as error:
        return [f'no XML: {error}']
    folder = [] if root.find('folder') is not None or not needs_folder else ['there is no folder']
    return [*_of_size(root, needs_folder), *folder, *_of_objects(root, classes)]


def _of_size(root: ElementTree.Element, is_needed: bool) -> Iterator[str]:
    size = root.find('size')
    if size is None:
        if is_needed:
            yield 'there is no size'
        return
    for key in ('width', 'height'):
        text = size.findtext(key)
        if not _is_whole(text):
            yield f'{key} of the size is {_told(text)}, expected a whole number'


def _of_objects(root: ElementTree.Element, classes: Collection[str]) -> Iterator[str]:
    for number, one in enumerate(root.iterfind('object'), 1):
        if one.find('name') is None:
            yield f'object {number} has no name'
            continue
        name = one.findtext('name')
        if name not in classes:
            continue
        about = f'object {number} ({name})'
        if one.find('difficult') is not None and not _is_whole(one.findtext('difficult')):
            yield f'{about}: difficult is {_told(one.findtext("difficult"))}, expected 0 or 1'
        box = one.find('bndbox')
        if box is None:
            yield f'{about} has no bndbox'
            continue
        for side in SIDES:
            if not _is_finite(box.findtext(side)):
                yield f'{about}: {side} is {_told(box.findtext(side))}, expected a number'


def _told(text: str | None) -> str:
    return 'missing' if text is None else repr(text)


def _is_whole(text: str | None) -> bool:
    try:
        int(text or '')
    except ValueError:
        return False
    return True


def _is_finite(text: str | None) -> bool:
    try:
        int(float(text or ''))
    except (ValueError, OverflowError):
        return False
    return True
