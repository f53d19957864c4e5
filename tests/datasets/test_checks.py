"""Which images of a data set are used."""

import pytest
from mmengine.dataset import BaseDataset

from vitdense.datasets.checks import subset


class Numbers(BaseDataset):
    """0 to 4, each an image."""

    def load_data_list(self) -> list[dict]:
        return [dict(number=i) for i in range(5)]


@pytest.mark.parametrize('serialize', [True, False])
@pytest.mark.parametrize('indices', [None, 3, 9, -1, -3, -9, [4, 0, 2], [0, -1], [2, 2], range(1, 4)])
def test_indices_leave_what_mmengine_leaves(indices, serialize):
    data = Numbers(indices=indices, serialize_data=serialize)
    assert subset(5, indices) == [data.get_data_info(i)['number'] for i in range(len(data))]


def test_none_of_the_images():
    assert subset(5, 0) == subset(5, ()) == subset(0, None) == []


def test_indices_that_there_are_not_are_left_out():
    assert subset(3, [0, 3, -4, 2]) == [0, 2]
