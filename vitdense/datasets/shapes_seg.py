from typing import Any, ClassVar

from mmseg.datasets import BaseSegDataset

from vitdense.registry import DATASETS

from .shapes_generator import CLASSES, PALETTE, ShapesSpec, ensure_shapes, get_split


@DATASETS.register_module()
class ShapesSegDataset(BaseSegDataset):
    """The semantic maps of the files that ``ShapesDataset`` uses: background (0) and five shapes (1 to 5).

    Background is a class like the others, so ``reduce_zero_label`` stays ``False``.

    Args:
        data_root: Folder of the data set.
        split: 'train' or 'val'; gives ``data_prefix`` and is not needed where that is given.
        data_prefix: Folders 'img_path' and 'seg_map_path', relative to ``data_root``.
        num_train: Images in the training split. All users of one ``data_root`` have to agree on the numbers.
        num_val: Images in the validation split.
        seed: Seed of the drawing.
        **kwargs: As for ``mmseg.datasets.BaseSegDataset``.

    Raises:
        ValueError: Unknown split, or a number out of range.
        FileExistsError: ``data_root`` holds something else, or a data set of other numbers; nothing is changed.
        FileNotFoundError: Files of the data set are missing in ``data_root``.
    """

    METAINFO: ClassVar[dict] = {'classes': ('background', *CLASSES), 'palette': [[60, 60, 60], *map(list, PALETTE)]}

    def __init__(
        self,
        *,
        data_root: str = 'data/shapes',
        split: str | None = None,
        data_prefix: dict | None = None,
        num_train: int = ShapesSpec.num_train,
        num_val: int = ShapesSpec.num_val,
        seed: int = ShapesSpec.seed,
        **kwargs: Any,
    ) -> None:
        self.spec = ShapesSpec(num_train, num_val, seed)
        if split is not None or data_prefix is None:
            paths = get_split(split)
            data_prefix = data_prefix or {'img_path': paths.image_dir, 'seg_map_path': paths.map_dir}
        super().__init__(data_root=data_root, data_prefix=data_prefix, **kwargs)

    def load_data_list(self) -> list[dict]:
        ensure_shapes(self.data_root, self.spec)
        return super().load_data_list()
