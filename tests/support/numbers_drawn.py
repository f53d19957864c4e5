"""A data set that workers can import, however they are started."""

from types import SimpleNamespace

import numpy as np
import torch
from torch.utils.data import Dataset


class Numbers(Dataset):
    """Random numbers, drawn where they are loaded."""

    def __init__(self, classes: tuple[str, ...] = ()) -> None:
        self.metainfo = dict(classes=classes)

    def __len__(self):
        return 6

    def __getitem__(self, index):
        sample = SimpleNamespace(metainfo=dict(img_id=100 + index, img_path=f'{index}.jpg'))
        return dict(inputs=torch.tensor([np.random.rand()]), data_samples=sample)
