"""mmdet's COCO data set with classes by name."""

import io
import logging
from collections.abc import Sequence
from contextlib import redirect_stdout

from mmdet.datasets import CocoDataset as MMDetCocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmengine.logging import print_log

from vitdense.registry import DATASETS

from .coco_fields import categories_by_name, normalise, read_json
from .garbage import no_collection


class QuietCOCO(COCO):
    """A COCO file, read without a word on stdout, that gives the categories in the order asked for.

    Flags, ids and names are as :func:`~vitdense.datasets.coco_fields.normalise` makes them.
    """

    def __init__(self, annotation_file: str | None = None) -> None:
        super().__init__()
        if annotation_file is None:
            return
        with redirect_stdout(io.StringIO()), no_collection():
            self.dataset = read_json(annotation_file)
            assert isinstance(self.dataset, dict), f'a {type(self.dataset).__name__}, expected a dict'
            normalise(self.dataset)
            self.createIndex()
        self.img_ann_map, self.cat_img_map = self.imgToAnns, self.catToImgs

    def get_cat_ids(self, cat_names: Sequence[str] = (), sup_names: Sequence[str] = (), cat_ids: Sequence = ()) -> list:
        """Category ids; for ``cat_names`` one of each in their order, ``None`` where there is no such category.

        Raises:
            ValueError: there is none of ``cat_names``; the message has both lists.
        """
        if not cat_names:
            return super().get_cat_ids([], list(sup_names), list(cat_ids))
        used = {category for category, images in self.catToImgs.items() if images}
        found = categories_by_name(self.dataset.get('categories', ()), used)
        by_name = {name: category['id'] for name, category in found.items()}
        if not by_name.keys() & set(cat_names):
            raise ValueError(
                f'none of the classes of the data set is in its annotation file: classes {list(cat_names)}, '
                f'categories of the file {list(by_name)}'
            )
        return [by_name.get(name) for name in cat_names]


@DATASETS.register_module()
class CocoDataset(MMDetCocoDataset):
    """``mmdet.CocoDataset`` whose labels follow the names in ``metainfo['classes']``, whatever the order of the file.

    Label ``k`` is class ``k``, and ``cat_ids[k]`` its category id or ``None`` where the file has no such category: the
    class keeps its label and stays without instances, which the log says. Arguments are those of ``mmdet.CocoDataset``.

    Raises:
        ValueError: classes are no list of names; the file has none of the classes; no image is left after
            ``filter_cfg``. The last two are raised when the file is read.
    """

    COCOAPI = QuietCOCO

    @classmethod
    def _load_metainfo(cls, metainfo: dict | None = None) -> dict:
        loaded = super()._load_metainfo(metainfo)
        if isinstance(loaded.get('classes'), str):
            raise ValueError(
                f'metainfo.classes of {cls.__name__} is the text {loaded["classes"]!r}, expected a list of names such '
                f'as ({loaded["classes"]!r},)'
            )
        if isinstance(loaded.get('classes'), list | tuple):
            loaded['classes'] = tuple(str(name) if type(name) in (int, float) else name for name in loaded['classes'])
        return loaded

    def load_data_list(self) -> list[dict]:
        """Images and annotations of ``ann_file``, see ``mmdet.CocoDataset``."""
        data_list = super().load_data_list()
        pairs = zip(self.metainfo['classes'], self.cat_ids, strict=True)
        missing = [name for name, category in pairs if category is None]
        if missing:
            print_log(f'{self.ann_file} has no category for {missing}', logger='current', level=logging.WARNING)
        return data_list

    def filter_data(self) -> list[dict]:
        """The images that ``filter_cfg`` leaves, see ``mmdet.CocoDataset``."""
        left = super().filter_data()
        if not left:
            instances = sum(len(info['instances']) for info in self.data_list)
            raise ValueError(
                f'{self.ann_file}: no image is left of {len(self.data_list)} with {instances} usable annotations of '
                f'the classes {list(self.metainfo["classes"])}; filter_cfg is {self.filter_cfg}'
            )
        return left
