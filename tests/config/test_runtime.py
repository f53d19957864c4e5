"""Configs of mmdet and mmseg under the tools of vitdense."""

import pytest
from mmdet.evaluation import CocoMetric
from mmengine.config import Config, ConfigDict

from vitdense.commands import parser_of
from vitdense.config.load import load_config
from vitdense.config.runtime import log_to, read_config, replace_types, use_runtime

RETINANET = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
OURS = {
    *('global_loss', 'invalid_loss', 'recent_batches', 'convert_checkpoint', 'start_report'),
    *('progress', 'results', 'pictures', 'evaluation_files', 'stop'),
}


def test_a_detector_gets_the_hooks_and_the_counterparts():
    cfg, stock = load_config(RETINANET), load_config(RETINANET)
    use_runtime(cfg)
    assert cfg.runner_type == 'vitdense.Runner'
    assert cfg.log_processor == dict(stock.log_processor, type='vitdense.LogProcessor')
    assert set(cfg.default_hooks) == set(stock.default_hooks) | OURS
    assert cfg.default_hooks.checkpoint == dict(type='vitdense.CheckpointHook', interval=1, save_best='auto')
    for split in ('train', 'val', 'test'):
        assert cfg[f'{split}_dataloader'].dataset.type == 'vitdense.CocoDataset'
        stock[f'{split}_dataloader'].dataset.type = 'vitdense.CocoDataset'
        assert cfg[f'{split}_dataloader'] == stock[f'{split}_dataloader'], 'all the rest is as it was'
    assert cfg.val_evaluator.type == cfg.test_evaluator.type == 'vitdense.CocoMetric'
    assert cfg.model == stock.model
    assert cfg.optim_wrapper == stock.optim_wrapper
    again = Config(cfg.to_dict())
    use_runtime(again)
    assert again.to_dict() == cfg.to_dict()


def test_a_segmentor_keeps_the_best_by_its_main_metric():
    cfg = load_config('mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py')
    use_runtime(cfg)
    assert cfg.val_evaluator.type == 'vitdense.IoUMetric'
    assert cfg.default_hooks.checkpoint.save_best == 'auto'
    assert cfg.log_processor == dict(type='vitdense.LogProcessor', by_epoch=False)
    assert cfg.train_dataloader.dataset.type == 'ADE20KDataset'


@pytest.mark.parametrize(
    ('kind', 'expected'),
    [
        (CocoMetric, 'vitdense.CocoMetric'),
        ('mmdet.evaluation.CocoMetric', 'vitdense.CocoMetric'),
        ('CocoMetric', 'vitdense.CocoMetric'),
        ('mine.CocoMetric', 'mine.CocoMetric'),
        (type('CocoMetric', (), {}), None),
    ],
)
def test_counterparts_of_classes_and_of_names(kind, expected):
    """Configs written as Python have classes, and whole names when they are dumped."""
    node = dict(evaluators=[dict(type=kind, metric='bbox')])
    replace_types(node)
    assert node == dict(evaluators=[dict(type=expected or kind, metric='bbox')])


def test_choices_of_a_config_are_kept():
    cfg = load_config(RETINANET)
    cfg.runner_type = 'mine.Runner'
    cfg.default_hooks.checkpoint.save_best = 'coco/bbox_mAP_50'
    cfg.default_hooks.results = dict(type='mine.Results')
    cfg.val_evaluator = [dict(type='mmdet.CocoMetric'), dict(type='LVISMetric'), dict(type='mine.CocoMetric')]
    use_runtime(cfg)
    assert cfg.runner_type == 'mine.Runner'
    assert cfg.default_hooks.checkpoint.save_best == 'coco/bbox_mAP_50'
    assert cfg.default_hooks.results.type == 'mine.Results'
    assert [metric.type for metric in cfg.val_evaluator] == ['vitdense.CocoMetric', 'LVISMetric', 'mine.CocoMetric']


def test_a_config_without_any_runtime():
    cfg = Config(dict(model=dict(type='X'), train_cfg=dict(max_epochs=1)))
    use_runtime(cfg)
    assert set(cfg.default_hooks) == OURS | {'checkpoint'}
    assert cfg.visualizer.vis_backends == [dict(type='LocalVisBackend')]


def test_options_reach_the_hooks_of_the_runtime():
    options = ['default_hooks.pictures=None', 'default_hooks.progress.interval=7', 'train_cfg.max_epochs=2']
    cfg = read_config(parser_of('train').parse_args([RETINANET, '--cfg-options', *options]))
    assert cfg.default_hooks.pictures is None
    assert cfg.default_hooks.progress == dict(type='vitdense.ProgressHook', interval=7)
    with pytest.raises(ValueError, match=r"key of default_hooks\.pictures.*'num_train_batch'.*'num_train_batches'"):
        read_config(
            parser_of('train').parse_args([RETINANET, '--cfg-options', 'default_hooks.pictures.num_train_batch=1'])
        )


def test_loggers_are_added_once():
    cfg = load_config(RETINANET)
    use_runtime(cfg)
    log_to(cfg, ['tensorboard', 'tensorboard', 'wandb'])
    assert cfg.visualizer.vis_backends == [
        ConfigDict(type='LocalVisBackend'),
        ConfigDict(type='TensorboardVisBackend'),
        ConfigDict(type='WandbVisBackend'),
    ]
