"""Modules under the names that they had in 0.1."""

from importlib import import_module, reload

import pytest

from vitdense.config import load, runtime

MOVED = {
    'vitdense.engine.runtime': (runtime, ('use_runtime',)),
    'vitdense.engine.config': (load, ('config_path', 'import_vitdense', 'load_config')),
}


@pytest.mark.parametrize('old', MOVED)
def test_an_old_name_leads_to_the_new_place_with_a_warning(old):
    new, names = MOVED[old]
    with pytest.warns(DeprecationWarning, match=f'{old} is {new.__name__}; 0.3 does without'):
        module = reload(import_module(old))
    assert [getattr(module, name) for name in names] == [getattr(new, name) for name in names]
