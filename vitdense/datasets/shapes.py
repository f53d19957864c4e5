from typing import Any, ClassVar

from vitdense.registry import DATASETS

from .coco import CocoDataset
from .shapes_generator import CLASSES, PALETTE, ShapesSpec, ensure_shapes, get_split


@DATASETS.register_module()
class ShapesDataset(CocoDataset):
    """Generated circles, crosses, squares, stars and triangles, with boxes and instance masks of their visible parts.

    The files are written at the first use and only read afterwards, see ``shapes_generator.ensure_shapes``. Masks are
    run-length encoded: leave ``poly2mask`` of ``LoadAnnotations`` at its default, ``True``.

    Args:
        data_root: Folder of the data set.
        split: 'train' or 'val'; gives ``ann_file`` and ``data_prefix`` where they are not given.
        ann_file: COCO file, relative to ``data_root``. ``split`` is not needed if this and ``data_prefix`` are there.
        data_prefix: Folders 'img' and 'seg' (semantic maps), relative to ``data_root``.
        num_train: Images in the training split. All users of one ``data_root`` have to agree on the numbers.
        num_val: Images in the validation split.
        seed: Seed of the drawing.
        **kwargs: As for ``CocoDataset``.

    Raises:
        ValueError: Unknown split, or a number out of range.
        FileExistsError: ``data_root`` holds something else, or a data set of other numbers; nothing is changed.
        FileNotFoundError: Files of the data set are missing in ``data_root``.
    """

    METAINFO: ClassVar[dict] = {'classes': CLASSES, 'palette': PALETTE}

    def __init__(
        self,
        *,
        data_root: str = 'data/shapes',
        split: str | None = None,
        ann_file: str = '',
        data_prefix: dict | None = None,
        num_train: int = ShapesSpec.num_train,
        num_val: int = ShapesSpec.num_val,
        seed: int = ShapesSpec.seed,
        **kwargs: Any,
    ) -> None:
        self.spec = ShapesSpec(num_train, num_val, seed)
        if split is not None or not ann_file or data_prefix is None:
            paths = get_split(split)
            ann_file = ann_file or paths.ann_file
            data_prefix = data_prefix or {'img': paths.image_dir, 'seg': paths.map_dir}
        super().__init__(data_root=data_root, ann_file=ann_file, data_prefix=data_prefix, **kwargs)

    def load_data_list(self) -> list[dict]:
        ensure_shapes(self.data_root, self.spec)
        return super().load_data_list()
