"""Images and maps in the folders of a data set that it does not read."""

import os
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from torchvision.datasets.folder import IMG_EXTENSIONS


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


class Neighbours:
    """Tells of a missing file which files of its folder have nearly its name."""

    def __init__(self) -> None:
        self.folders: dict[str, dict[str, str]] = {}

    def tell(self, path: str) -> str:
        """What is there instead, such as the same name with another suffix or in capitals."""
        folder, name = os.path.split(path)
        if folder not in self.folders:
            names = sorted(os.listdir(folder or '.')) if os.path.isdir(folder or '.') else []
            self.folders[folder] = {os.path.splitext(other)[0].lower(): other for other in names}
        other = self.folders[folder].get(os.path.splitext(name)[0].lower())
        return f'there is no such file, but {other}' if other else 'there is no such file'


def _files(folder: str, folders: list[str]) -> Iterator[str]:
    """Files below a folder as mmseg lists them, without hidden ones; the folders are added to ``folders``."""
    for place, _, names in os.walk(folder, followlinks=True):
        folders.append(place)
        relative = os.path.relpath(place, folder)
        for name in sorted(names):
            if not name.startswith('.'):
                yield os.path.join(folder, name if relative == '.' else os.path.join(relative, name))
