"""Data as users have them: recognised, read, divided, and turned into what mmdet and mmseg read.

Nothing here needs PyTorch or the OpenMMLab packages. Files of users are never changed.
"""

from dataclasses import dataclass, field
from pathlib import Path

from vitdense.findings import Finding

from . import coco, labelme, maps, voc, yolo
from .listing import Listing, as_coco
from .parts import divide
from .recognise import KNOWN, recognise
from .store import keep_json

__all__ = ['FRACTION', 'KNOWN', 'OwnData', 'Part', 'read_data']

FRACTION = 0.2
"""Of the images, that validate where the data have no such part."""


@dataclass(frozen=True)
class Part:
    """One part of the data.

    Attributes:
        ann_file: COCO file, or list of pairs of images and maps.
        folder: what the names of images, and of maps, are relative to.
        images: how many there are.
    """

    ann_file: str
    folder: str
    images: int


@dataclass
class OwnData:
    """Data that a config can be given.

    Attributes:
        format: one of ``KNOWN``.
        task: 'detection' or 'segmentation'.
        root: the folder of the data.
        classes: names; empty for maps to which no file gives names.
        parts: 'train', 'val' and 'test', those that are there.
        masks: whether objects have masks.
        reduce_zero_label: of maps, whether 0 is no class; ``None`` where nothing says so.
        findings: what is wrong with single files, lines and objects; these are not among the parts.
        remarks: what is worth to be said.
    """

    format: str
    task: str
    root: Path
    classes: tuple[str, ...]
    parts: dict[str, Part]
    masks: bool = False
    reduce_zero_label: bool | None = None
    findings: list[Finding] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def read_data(path: Path, task: str, name: str | None = None, fraction: float = FRACTION) -> OwnData:
    """Read data of any format of ``KNOWN``.

    Args:
        path: a folder, or the file that describes the data.
        task: what they are for, 'detection' or 'segmentation'.
        name: the format, where a folder has several.
        fraction: of the images, for validation where the data have no such part.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: no format is known, or several fit; files that everything else hangs on are faulty; or there is
            no image. Single faults are in ``findings``.
    """
    kind, place = recognise(path.absolute(), task, name)
    if kind == 'coco':
        found = coco.read(place, fraction)
        parts = {part: Part(str(file), str(folder), number) for part, (file, folder, number) in found.files.items()}
        return OwnData(kind, task, found.root, found.classes, parts, found.masks, remarks=found.remarks)
    if kind == 'maps':
        pairs = maps.read(place, fraction)
        parts = {part: Part(str(file), str(place), number) for part, (file, number) in pairs.lists.items()}
        data = OwnData(kind, task, place, pairs.classes, parts, False, pairs.reduce_zero_label)
        data.findings, data.remarks = pairs.findings, pairs.remarks
    else:
        reader = {'yolo': yolo.read, 'voc': voc.read, 'labelme': labelme.read}[kind]
        data = _write(kind, place.parent if place.is_file() else place, reader(place), fraction)
    if not data.parts and not data.findings:
        raise ValueError(f'--data {path}: {KNOWN[kind]}, but without an image')
    return data


def _write(kind: str, root: Path, listing: Listing, fraction: float) -> OwnData:
    """Divide what a reader listed, and write a COCO file of each part."""
    names = {
        part: [str(one.path.relative_to(root) if one.path.is_relative_to(root) else one.path) for one in entries]
        for part, entries in listing.parts.items()
    }
    divided, note = divide(listing.parts, names, fraction)
    data = OwnData(kind, 'detection', root, listing.classes, {}, findings=listing.findings, remarks=listing.remarks)
    data.remarks += [note] if note else []
    for part, pictures in divided.items():
        file = keep_json(as_coco(pictures, listing.classes, root), f'{root.name}_{part}.json')
        data.parts[part] = Part(str(file), str(root), len(pictures))
        data.masks |= any(thing.polygons for picture in pictures for thing in picture.things)
    return data
