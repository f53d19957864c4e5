"""Settings of loaders that exclude each other."""

import pytest
from mmengine.config import Config
from torch.utils.data import DataLoader

from vitdense.checks import Run, check

SETTINGS = [dict(persistent_workers=True), dict(prefetch_factor=2), dict(timeout=5)]


def found(loader: dict, split: str = 'train', splits: tuple[str, ...] = ('train', 'val')) -> list[str]:
    cfg = Config({f'{split}_dataloader': dict(batch_size=1, **loader)})
    return [finding.where for finding in check(Run(cfg, splits), 'config')]


@pytest.mark.parametrize('setting', SETTINGS, ids=lambda setting: next(iter(setting)))
@pytest.mark.parametrize('none', [dict(num_workers=0), {}])
def test_what_the_loader_refuses_without_workers_is_named(setting, none):
    if 'timeout' not in setting:  # which it takes, and an iterator of it asserts
        with pytest.raises(ValueError, match='num_workers'):
            DataLoader([1], **none, **setting)
    assert found({**none, **setting}) == [f'train_dataloader.{next(iter(setting))}']
    assert found(dict(num_workers=1, **setting)) == []


def test_every_split_that_is_used_is_asked():
    loader = dict(num_workers=0, persistent_workers=True)
    assert found(loader, 'val') == ['val_dataloader.persistent_workers']
    assert found(loader, 'test') == []
    assert found(loader, 'test', ('test',)) == ['test_dataloader.persistent_workers']


def test_settings_that_say_nothing_are_fine():
    assert found(dict(num_workers=0, persistent_workers=False, prefetch_factor=None, timeout=0)) == []
