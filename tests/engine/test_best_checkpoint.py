"""By which metric the best checkpoint is chosen, and what an early stop says."""

import math
import re
from pathlib import Path

import pytest
import torch
from support.toy_run import toy_runner

from vitdense.engine.hooks import CheckpointHook, EarlyStoppingHook, ProgressHook

NAN = math.nan


def train(tmp_path, metrics, epochs=None, checkpoint=None, stop=None, **train_cfg):
    """Train with one evaluation an epoch, each with one of ``metrics``; the names of the best files."""
    hooks = [EarlyStoppingHook(**stop)] if stop is not None else []
    runner = toy_runner(
        tmp_path / 'run', tmp_path / 'data', hooks, metrics,
        train_cfg or dict(by_epoch=True, max_epochs=epochs or len(metrics), val_interval=1),
        default_hooks=dict(checkpoint=CheckpointHook(**{'save_best': 'auto', **(checkpoint or {})}), logger=None,
                           progress=ProgressHook()),
        log_processor=dict(by_epoch=not train_cfg),
    )  # fmt: skip
    runner.train()
    return runner


def best(runner) -> set[str]:
    return {path.name for path in Path(runner.work_dir).glob('best*')}


def log_of(runner) -> str:
    return next(Path(runner.work_dir).rglob('*.log')).read_text()


@pytest.mark.slow
def test_neither_a_class_nor_the_first_key_decides(tmp_path):
    metrics = [{'disc_precision': NAN, 'slab_precision': 0.9, 'bbox_mAP': value} for value in (0.1, 0.3, 0.2)]
    runner = train(tmp_path, metrics)
    assert best(runner) == {'best.pth', 'best_toy_bbox_mAP_epoch_2.pth'}


def test_nan_is_never_best_and_hides_nothing(tmp_path):
    runner = train(tmp_path, [{'mIoU': value} for value in (NAN, 0.2, math.inf, 0.3, NAN)])
    assert best(runner) == {'best.pth', 'best_toy_mIoU_epoch_4.pth'}
    assert log_of(runner).count('no best checkpoint by toy/mIoU') == 1


def test_less_may_be_better(tmp_path):
    runner = train(tmp_path, [{'rmse': value, 'd1': 0.1} for value in (3.0, 1.0, 2.0)])
    assert best(runner) == {'best.pth', 'best_toy_rmse_epoch_2.pth'}


def test_an_unknown_metric_costs_one_warning_and_no_run(tmp_path):
    runner = train(tmp_path, [{'boxes': 1.0}, {'boxes': 2.0}])
    assert best(runner) == set()
    [line] = [line for line in log_of(runner).splitlines() if 'no best.pth' in line]
    assert 'toy/boxes' in line
    assert 'save_best=KEY' in line
    assert runner.epoch == 2


@pytest.mark.parametrize('value', ['0.1 0.2', None, [0.1]])
def test_what_the_user_chose_is_respected_and_a_wrong_choice_ends_no_run(value, tmp_path):
    chosen = dict(save_best=['toy/mAcc', 'toy/text', 'toy/none'], rule=['greater', 'less', 'less'])
    runner = train(tmp_path, [{'mIoU': 1 - v, 'mAcc': v, 'text': value} for v in (0.1, 0.2)], checkpoint=chosen)
    assert best(runner) == {'best_toy_mAcc.pth', 'best_toy_mAcc_epoch_2.pth'}
    assert 'no best checkpoint by toy/none of this validation: there is no such metric, only' in log_of(runner)


@pytest.mark.parametrize('key', ['coco_panoptic/PQ', 'mFscore', 'lvis/segm_AP'])
def test_directions_that_mmengine_does_not_know(key):
    hook = CheckpointHook(save_best=key)
    assert hook.rules == ['greater']
    with pytest.raises(ValueError, match='Cannot infer the rule'):
        CheckpointHook(save_best='mine/boxes')


def test_a_resumed_run_forgets_the_best_of_another_metric(tmp_path):
    first = train(tmp_path, [{'boxes': 50.0, 'mIoU': 0.1}], checkpoint=dict(save_best='toy/boxes', rule='greater'))
    assert best(first) == {'best.pth', 'best_toy_boxes_epoch_1.pth'}
    runner = toy_runner(
        tmp_path / 'run', tmp_path / 'data', [], [{'boxes': 1.0, 'mIoU': 0.2}],
        dict(by_epoch=True, max_epochs=2, val_interval=1), resume=True, load_from=str(tmp_path / 'run/last.pth'),
        default_hooks=dict(checkpoint=CheckpointHook(save_best='auto'), logger=None),
    )  # fmt: skip
    runner.train()
    assert 'best_toy_mIoU_epoch_2.pth' in best(runner)
    assert torch.load(tmp_path / 'run/best.pth', weights_only=True)['meta']['epoch'] == 2


def test_an_early_stop_says_why_and_saves_its_last_step(tmp_path, capsys):
    scores = [0.1, 0.5, 0.5, 0.51, 0.9]
    runner = train(
        tmp_path, [{'bbox_mAP': value} for value in scores], 20, dict(interval=10), dict(patience=2, min_delta=0.05)
    )
    assert runner.epoch == 4
    [line] = re.findall('stopped early.*', capsys.readouterr().out)
    assert line == (
        'stopped early at epoch 4/20: toy/bbox_mAP has not risen by 0.05 from its best, 0.5, in 2 validations. '
        'This is not the end of the schedule: --resume with a greater patience goes on'
    )
    assert torch.load(tmp_path / 'run/last.pth', weights_only=True)['meta']['epoch'] == 4


@pytest.mark.parametrize(
    ('values', 'stop', 'said'),
    [
        (
            [3.0, 2.0, 2.0],
            dict(patience=1, min_delta=0.1),
            'iter 6/40: toy/rmse has not fallen by 0.1 from its best, 2,',
        ),
        ([3.0, 0.5], dict(stopping_threshold=1.0), 'iter 4/40: toy/rmse is 0.5, stopping_threshold is 1'),
        ([3.0, NAN], dict(monitor='toy/rmse'), 'iter 4/40: toy/rmse is nan'),
    ],
)
def test_early_stops_of_iterations(values, stop, said, tmp_path, capsys):
    loop = dict(by_epoch=False, max_iters=40, val_interval=2)
    train(tmp_path, [{'rmse': v} for v in values], None, dict(by_epoch=False, interval=100), stop, **loop)
    assert f'stopped early at {said}' in capsys.readouterr().out
    assert (tmp_path / 'run/last.pth').is_file()


def test_a_monitor_that_is_not_there_is_warned_about_once(tmp_path):
    runner = train(tmp_path, [{'mIoU': 0.1}] * 3, stop=dict(monitor='mIoU', patience=1))
    assert runner.epoch == 3
    [line] = [line for line in log_of(runner).splitlines() if 'EarlyStoppingHook: monitor' in line]
    assert "monitor is 'mIoU', the validation has toy/mIoU" in line
