"""Images and maps in the folders of a data set that it does not read."""

import os
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from torchvision.datasets.folder import IMG_EXTENSIONS

from vitdense.findings import Finding

from . import rules


def unread_files(dataset: Any) -> tuple[dict[str, list[str]], list[str]]:
    """Files that a data set of mmseg, whose ``data_list`` is there, leaves out because of their names.

    These are images of other suffixes, and maps named by ``seg_map_suffix`` that have no image; Cityscapes has other
    files beside its maps. A data set with a list of names, or with a way of its own to list its files, leaves out
    nothing.

    Returns:
        Images and maps by 'img_path' and 'seg_map_path', and the folders that were looked into.
    """
    owner = next(cls for cls in type(dataset).__mro__ if 'load_data_list' in vars(cls))
    if os.path.isfile(dataset.ann_file or '') or owner.__module__ != 'mmseg.datasets.basesegdataset':
        return {}, []
    read = {info.get(key) for info in dataset.data_list for key in ('img_path', 'seg_map_path')}
    images, maps = (dataset.data_prefix.get(key) for key in ('img_path', 'seg_map_path'))
    folders: list[str] = []
    spare = [] if maps is None else [path for path in _files(maps, folders) if path not in read]
    spare = [path for path in spare if path.endswith(dataset.seg_map_suffix)]
    without_image = {os.path.relpath(path, maps).removesuffix(dataset.seg_map_suffix) for path in spare}
    among_images = maps is not None and PurePath(os.path.abspath(maps)).is_relative_to(os.path.abspath(images))
    suffix = os.path.splitext(dataset.img_suffix)[1] or dataset.img_suffix
    known = {*read, *spare}
    left = []
    for path in _files(images, folders):
        stem, end = os.path.splitext(os.path.relpath(path, images))
        if path in known or end.lower() not in IMG_EXTENSIONS:
            continue
        is_map = among_images and PurePath(os.path.abspath(path)).is_relative_to(os.path.abspath(maps))
        if stem in without_image or (end != suffix and not is_map):
            left.append(path)
    return {'img_path': left, 'seg_map_path': spare}, folders


def maps_among_images(dataset: Any, entries: Mapping[int, dict]) -> list[Finding]:
    """Semantic maps that a data set of mmseg takes for images, because they lie among these and end alike.

    Args:
        entries: image and map by the place in the list of all.

    Returns:
        A finding for each, which leaves the entry out; or one without a place if images are their own maps.
    """
    both = {
        i: [os.path.abspath(info[key]) for key in ('img_path', 'seg_map_path')]
        for i, info in entries.items()
        if info.get('seg_map_path')
    }
    same = [image for image, own in both.values() if image == own]
    suffixes = f'img_suffix {dataset.img_suffix!r} and seg_map_suffix {dataset.seg_map_suffix!r}'
    folders = [os.path.abspath(dataset.data_prefix.get(key) or '.') for key in ('img_path', 'seg_map_path')]
    if same:
        message = f'{len(same)} of {len(entries)} images are their own maps, the first is {same[0]}: {suffixes}'
        return [Finding(rules.MAP_AS_IMAGE, folders[0], message)]
    owners = {own: image for image, own in both.values()}
    nested = folders[1] != folders[0] and PurePath(folders[1]).is_relative_to(folders[0])
    findings = []
    for i, (image, _) in both.items():
        if image in owners:
            message = f'the map of {owners[image]}: {suffixes}'
        elif nested and PurePath(image).is_relative_to(folders[1]):
            message = f'in the folder of the maps, which is in that of the images: {suffixes}'
        else:
            continue
        findings.append(Finding(rules.MAP_AS_IMAGE, image, message, True, 'image', i))
    return findings


class Neighbours:
    """Tells of a missing file which files of its folder have nearly its name."""

    def __init__(self) -> None:
        self.folders: dict[str, dict[str, str] | None] = {}

    def tell(self, path: str) -> str:
        """What is there instead, such as the same name with another suffix or in capitals."""
        folder, name = os.path.split(path)
        if folder not in self.folders:
            names = sorted(os.listdir(folder or '.')) if os.path.isdir(folder or '.') else None
            known = None if names is None else {os.path.splitext(other)[0].lower(): other for other in names}
            self.folders[folder] = known
        there = self.folders[folder]
        if there is None:
            return f'there is no folder {folder}'
        other = there.get(os.path.splitext(name)[0].lower())
        return f'there is no such file, but {other}' if other else 'there is no such file'


def _files(folder: str, folders: list[str]) -> Iterator[str]:
    """Files below a folder as mmseg lists them, without hidden ones; the folders are added to ``folders``."""
    for place, _, names in os.walk(folder, followlinks=True):
        folders.append(place)
        relative = os.path.relpath(place, folder)
        for name in sorted(names):
            if not name.startswith('.'):
                yield os.path.join(folder, name if relative == '.' else os.path.join(relative, name))
