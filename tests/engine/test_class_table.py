"""The class table with names in any script."""

import pytest
from rich.cells import cell_len

from vitdense.datasets.scan import SplitReport
from vitdense.engine.hooks.start_report import class_table


@pytest.mark.parametrize('names', [('nut', 'a long name'), ('螺母', 'bolt'), ('ワッシャー', 'é')])
def test_columns_stand_below_each_other(names):
    """Chinese letters are two columns wide on a terminal."""
    table = dict.fromkeys(names, (3, 4))
    rows = list(class_table([SplitReport('train_dataloader.dataset', 'CocoDataset', per_class=table)], 8))
    assert len({cell_len(row) for row in rows}) == 1
    assert sorted(row.split('  ')[-1].strip() for row in rows[1:]) == ['4', '4']
