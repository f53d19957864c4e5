"""What a data set lists through ``load_data_list``, and the entries that it cannot read."""

import io
import os
import pickle
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

from mmengine.dataset import BaseDataset

from .coco_file import FileFault
from .name_lines import line_fault, name_lines
from .resolve import Leaf
from .unread import Neighbours
from .xml_files import xml_faults

TOLERANT = ('XMLDataset', 'LVISV05Dataset')
"""Data sets that go on after an entry that cannot be read. Others may keep on disk what they have read until then."""


@dataclass(frozen=True)
class Broken:
    """An entry that a data set cannot read.

    Attributes:
        place: in the list.
        where: the file, or the line of a list of names.
        found: what is wrong.
        is_line: whether that is the line.
    """

    place: int
    where: str
    found: str
    is_line: bool = False


@dataclass
class Listing:
    """What a data set lists.

    Attributes:
        entries: what it could read.
        broken: what it could not read.
        names: how many objects have each name in the files, where that is known.
        categories: names of the categories of a file that the labels follow, where that is known.
        lines: the list of names that it reads, one an entry; empty where there is none.
        places: place among all entries by the identity of an entry.
    """

    entries: list[dict] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    names: Counter[str] = field(default_factory=Counter)
    categories: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    places: dict[int, int] = field(default_factory=dict)

    def content(self) -> bytes:
        """All that findings can depend on."""
        return pickle.dumps((self.entries, self.broken, sorted(self.names.items()), self.categories))


class _Unread(dict):
    """Stands in the list for an entry that cannot be read."""

    def __init__(self, raw: Any, error: Exception) -> None:
        super().__init__()
        self.raw, self.error = raw, error


def list_entries(leaf: Leaf) -> Listing:
    """Let the data set list its entries, which are kept in it as well.

    Raises:
        FileFault: it cannot.
        ImportError: a package is missing that it needs.
    """
    dataset, listing = leaf.dataset, Listing()
    unread: list[_Unread] = []
    dataset.parse_data_info = _tolerant(leaf, dataset.parse_data_info, unread, listing)
    if is_a(dataset, 'XMLDataset'):
        dataset._parse_instance_info = _counting(dataset._parse_instance_info, listing.names)
    everything: list = []
    try:
        with redirect_stdout(io.StringIO()):
            everything = dataset.load_data_list()
    except (ImportError, FileFault):
        raise
    except Exception as error:  # data sets assert and raise all kinds of things
        if not unread:  # else it has stumbled over what stands for these
            raise FileFault(f'{leaf.type} cannot list its images: {_told(error)}') from None
        everything = list(unread)
    finally:
        vars(dataset).pop('parse_data_info')
        vars(dataset).pop('_parse_instance_info', None)
    is_list = is_a(dataset, 'XMLDataset')
    lines = listing.lines = name_lines(dataset.ann_file, len(everything)) if is_list else []
    near = Neighbours()
    listing.broken = [
        _broken(leaf, i, one, lines, near) for i, one in enumerate(everything) if isinstance(one, _Unread)
    ]
    listing.entries = dataset.data_list = [one for one in everything if not isinstance(one, _Unread)]
    listing.places = {id(one): i for i, one in enumerate(everything)}
    return listing


def is_a(dataset: BaseDataset, *names: str) -> bool:
    """Whether a data set is of a class of one of these names, or of a subclass; mmdet need not be there."""
    return bool({kind.__name__ for kind in type(dataset).__mro__} & set(names))


def _tolerant(leaf: Leaf, parse: Callable, unread: list[_Unread], listing: Listing) -> Callable:
    """``parse`` that goes on after an error where the data set allows it."""
    of_crowds = is_a(leaf.dataset, 'CrowdHumanDataset')

    @wraps(parse)
    def parsed(raw: Any) -> Any:
        if of_crowds:  # tells regions to ignore by the name 'mask'
            listing.names.update(str(one.get('tag')) for one in raw.get('gtboxes') or () if one.get('tag') != 'mask')
        if hasattr(leaf.dataset, 'lvis') and not listing.categories:  # it is there while the file is read
            listing.categories = [one['name'] for one in leaf.dataset.lvis.cats.values()]
        try:
            return parse(raw)
        except ImportError:
            raise
        except Exception as error:
            if not is_a(leaf.dataset, *TOLERANT):
                about = f'{_told(error)} at {str(raw)[:200]}'
                raise FileFault(f'{leaf.type} cannot list its images: {about}') from None
            unread.append(_Unread(raw, error))
            return unread[-1]

    return parsed


def _counting(walk: Callable, names: Counter[str]) -> Callable:
    """``_parse_instance_info`` of an XML data set that counts the names in the files."""

    @wraps(walk)
    def counted(tree: Any, *args: Any, **kwargs: Any) -> Any:
        names.update(name.text or '' for name in tree.iterfind('object/name'))
        return walk(tree, *args, **kwargs)

    return counted


def _broken(leaf: Leaf, place: int, one: _Unread, lines: list[str], near: Neighbours) -> Broken:
    dataset, error = leaf.dataset, one.error
    if not is_a(dataset, 'XMLDataset'):
        image = one.raw.get('raw_img_info', one.raw) if isinstance(one.raw, dict) else one.raw
        return Broken(place, str(image)[:100], _told(error))
    folder = _xml_folder(dataset)
    path = os.path.join(folder, f'{one.raw["img_id"]}.xml')
    if isinstance(error, OSError):
        missing = os.fspath(error.filename or path)
        fault = line_fault(lines[place], folder, '.xml') if lines and missing == path else ''
        if fault:
            return Broken(place, f'{dataset.ann_file}, line {place + 1}', fault, True)
        return Broken(place, missing, near.tell(missing) if not os.path.exists(missing) else str(error.strerror))
    faults = xml_faults(path, dataset.metainfo['classes'], is_a(dataset, 'WIDERFaceDataset'))
    return Broken(place, path, '; '.join(faults[:3]) or _told(error))


def _told(error: Exception) -> str:
    """An error of a data set; where it has no message, the line of code that raised it."""
    kind, line = type(error).__name__, traceback.extract_tb(error.__traceback__)[-1]
    return f'{kind}: {error}' if str(error) else f'{kind} in {os.path.basename(line.filename)}: {line.line}'


def _xml_folder(dataset: Any) -> str:
    if is_a(dataset, 'WIDERFaceDataset'):
        return os.path.join(dataset.data_prefix.get('img', ''), 'Annotations')
    return os.path.join(dataset.sub_data_root, dataset.ann_subdir)
