"""Images and semantic maps by a list, whatever their suffixes and folders."""

import os
from typing import Any

from mmseg.datasets import BaseSegDataset

from vitdense.registry import DATASETS


@DATASETS.register_module()
class PairedMapsDataset(BaseSegDataset):
    """``mmseg.BaseSegDataset`` whose ``ann_file`` names both files of each pair, with their suffixes.

    A line has an image and, after a tab, its map: paths relative to ``data_prefix['img_path']`` and
    ``data_prefix['seg_map_path']``. Other arguments are those of ``mmseg.BaseSegDataset``.

    Raises:
        ValueError: a line without a tab; raised when the file is read.
    """

    def load_data_list(self) -> list[dict[str, Any]]:
        """The pairs in the order of the list."""
        images, maps = self.data_prefix['img_path'], self.data_prefix['seg_map_path']
        pairs = []
        with open(self.ann_file, encoding='utf-8', errors='surrogateescape', newline='\n') as file:
            for number, line in enumerate(file, 1):
                image, tab, semantic = line.rstrip('\n').partition('\t')
                if not tab:
                    raise ValueError(f'{self.ann_file}, line {number}: expected IMAGE, a tab and MAP, found {image!r}')
                pairs.append(
                    dict(
                        img_path=os.path.join(images, image),
                        seg_map_path=os.path.join(maps, semantic),
                        label_map=self.label_map,
                        reduce_zero_label=self.reduce_zero_label,
                        seg_fields=[],
                    )
                )
        return pairs
