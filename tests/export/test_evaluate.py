"""Metrics of whatever predicts are those of a test."""

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import RUNNERS
from support.trained import work_dir

import vitdense
from vitdense.config.runtime import use_runtime
from vitdense.export.evaluate import differing, evaluate

pytestmark = pytest.mark.slow


@pytest.mark.parametrize('kind', ['detector', 'instances', 'maps'])
def test_equals_a_test(kind, tmp_path):
    folder = work_dir(kind, tmp_path)
    cfg = Config.fromfile(folder / f'{kind}.py')
    use_runtime(cfg)
    cfg.update(work_dir=str(tmp_path / 'tested'), load_from=str(folder / 'best.pth'))
    expected = RUNNERS.build(cfg).test()
    model = vitdense.load(folder, device='cpu')
    found = evaluate(model, model.cfg)
    assert set(found) == set(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, atol=1e-6, err_msg=key)
    assert max(found.values()) > 0 or kind == 'instances', 'five boxes an image of random weights hit nothing'
    assert differing(expected, found) == []
    key = max(found, key=found.get)
    assert differing(expected, {**found, key: found[key] + (2 if kind == 'maps' else 0.002)}) == [key]


def test_without_an_evaluation():
    with pytest.raises(ValueError, match='no metrics to compare: the config has no val_evaluator'):
        evaluate(None, Config(dict(val_evaluator=dict(type='CocoMetric'))))


def test_metrics_that_one_alone_has_differ():
    assert differing(dict(a=0.5, b=float('nan')), {}) == ['a']
