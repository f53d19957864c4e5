"""``--cfg-options``: what something reads is accepted, the rest is an error or a warning with the nearest keys."""

import inspect
import re
from pathlib import Path

import pytest
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.runner import Runner
from support import CONFIGS, ROOT
from support.configs import LEAVES, METHODS
from support.sweep import but_for_the_sweep
from torch.utils.data import DataLoader

from vitdense.config.cfg_options import check_options, merge_options
from vitdense.config.known_keys import PLACES, arguments, hands_on, resolve
from vitdense.config.load import config_path
from vitdense.config.option_values import read_value
from vitdense.config.tree import look_up

OURS = [str(CONFIGS / leaf) for leaf in LEAVES]
STOCK = [
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
    'mmdet::detr/detr_r50_8xb2-150e_coco.py',
    'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
    'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py',
    'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_amp-ms-crop-3x_coco.py',
    'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py',
    'mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py',
    'mmseg::setr/setr_vit-l_naive_8xb2-160k_ade20k-512x512.py',
    'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
]
RETINANET, MASK_RCNN, CASCADE, UPERNET = STOCK[0], STOCK[1], STOCK[2], STOCK[9]
TYPICAL = [
    ['train_dataloader.batch_size=8', 'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False'],
    ['train_dataloader.pin_memory=True', 'train_dataloader.drop_last=True', 'train_dataloader.num_batch_per_epoch=2'],
    ['val_dataloader.sampler.shuffle=False', 'train_dataloader.collate_fn.type=default_collate'],
    ['optim_wrapper.optimizer.lr=0.01', 'optim_wrapper.optimizer.weight_decay=0.1', 'optim_wrapper.optimizer.eps=1e-6'],
    ['optim_wrapper.optimizer._delete_=True', 'optim_wrapper.optimizer.type=SGD', 'optim_wrapper.optimizer.momentum=0'],
    ['optim_wrapper.type=AmpOptimWrapper', 'optim_wrapper.loss_scale=dynamic', 'optim_wrapper.accumulative_counts=2'],
    ['optim_wrapper.clip_grad.max_norm=1', 'optim_wrapper.clip_grad.norm_type=2'],
    ['optim_wrapper.paramwise_cfg.norm_decay_mult=0', 'optim_wrapper.paramwise_cfg.custom_keys.cls_tokn.lr_mult=0.1'],
    ['default_hooks.checkpoint.interval=2', 'default_hooks.checkpoint.max_keep_ckpts=3', 'default_hooks.logger=None'],
    ['default_hooks.visualization.draw=True', 'default_hooks.logger.interval=10', 'default_hooks.timer.priority=LOW'],
    ['default_hooks.early_stopping.type=EarlyStoppingHook', 'default_hooks.early_stopping.monitor=coco/bbox_mAP'],
    ['visualizer.vis_backends.0.type=TensorboardVisBackend'],
    ['visualizer.vis_backends.0.type=WandbVisBackend', 'visualizer.vis_backends.0.init_kwargs.entity=me'],
    ['randomness.seed=1', 'randomness.deterministic=True', 'randomness.diff_rank_seed=True'],
    ['env_cfg.cudnn_benchmark=True', 'env_cfg.mp_cfg.mp_start_method=spawn', 'env_cfg.dist_cfg.timeout=60'],
    ['load_from=a.pth', 'resume=True', 'work_dir=runs/a', 'log_level=WARNING', 'find_unused_parameters=True'],
    ['auto_scale_lr.enable=True', 'auto_scale_lr.base_batch_size=16', 'log_processor.window_size=10', 'compile=True'],
    ['param_scheduler.0.end=500', 'param_scheduler.0.verbose=True'],
    ['train_cfg.val_interval=3', 'train_cfg.val_begin=2', 'train_cfg.dynamic_intervals=None'],
    ['train_dataloader.dataset.metainfo.classes=(cat,dog)', 'train_dataloader.dataset.pipeline.0.backend_args=None'],
    ['model.init_cfg.type=Pretrained', 'model.init_cfg.checkpoint=a.pth', 'model.data_preprocessor.bgr_to_rgb=False'],
    ['model.test_cfg.score_thr=0.0', 'model.test_cfg.nms.iou_threshold=0.5', 'model.backbone.init_cfg=None'],
]  # fmt: skip


def parsed(options: list[str]) -> dict:
    """As the command line gives them."""
    found = {}
    for option in options:
        key, value = option.split('=', 1)
        found[key] = read_value(value)
    return found


def read(name: str) -> Config:
    return Config.fromfile(config_path(name))


@pytest.mark.slow
@pytest.mark.parametrize(
    'name',
    but_for_the_sweep([*OURS, *STOCK], [*(str(CONFIGS / leaf) for leaf in METHODS), *STOCK]),
    ids=lambda name: Path(name).stem,
)
def test_typical_options_are_accepted(name):
    cfg = read(name)
    for options in TYPICAL:
        if 'optimizer.eps' in options[-1] and 'Adam' not in cfg.optim_wrapper.optimizer.type:
            options = options[:-1]
        if options[0].startswith('param_scheduler.0') and isinstance(cfg.param_scheduler, dict):
            options = [option.replace('.0.', '.') for option in options]
        if 'train_dataloader.dataset.metainfo' in options[0] and 'dataset' in cfg.train_dataloader.dataset:
            options = [option.replace('dataset.', 'dataset.dataset.', 1) for option in options]
        if 'rcnn' in (cfg.model.get('test_cfg') or {}):
            options = [option.replace('model.test_cfg.', 'model.test_cfg.rcnn.') for option in options]
        if cfg.default_scope == 'mmseg':
            options = [option for option in options if not option.startswith('model.test_cfg.')]
        assert check_options(cfg, parsed(options)) == []


@pytest.mark.parametrize(
    ('name', 'options'),
    [
        (RETINANET, ['model.backbone.with_cp=True', 'train_cfg.max_epochs=1', 'train_cfg.type=IterBasedTrainLoop']),
        (RETINANET, ['train_dataloader.dataset.pipeline.2.scale=(96,64)', 'val_evaluator.ann_file=a.json']),
        (RETINANET, ['train_dataloader.dataset.indices=64', 'train_dataloader.dataset.filter_cfg.min_size=1']),
        (RETINANET, ['model.backbone._delete_=True', 'model.backbone.type=vitdense.PVT', 'model.backbone.arch=tiny',
                     'model.backbone.drop_path_rate=0.2', 'model.backbone.init_cfg.type=vitdense.Pretrained',
                     'model.backbone.init_cfg.checkpoint=pvt_tiny']),
        (MASK_RCNN, ['model.rpn_head.anchor_generator.scales=[4]', 'model.test_cfg.rcnn.max_per_img=9']),
        (STOCK[2], ['model.roi_head.bbox_head.2.num_classes=3', 'model.roi_head.stage_loss_weights=[1,1,1]']),
        (STOCK[6], ['train_dataloader.dataset.dataset.data_root=a', 'custom_hooks.0.num_last_epochs=3']),
        (UPERNET, ['train_cfg.max_iters=1', 'train_cfg.val_interval=1', 'model.decode_head.num_classes=3',
                   'val_dataloader.dataset.data_prefix.img_path=images', 'model.auxiliary_head.channels=64',
                   'model.test_cfg.mode=slide', 'model.test_cfg.stride=(3,3)', 'model.backbone.norm_cfg.eps=1e-6']),
    ],
)  # fmt: skip
def test_options_of_these_models_are_accepted(name, options):
    assert check_options(read(name), parsed(options)) == []


def test_options_of_the_documentation_are_accepted():
    texts = [(ROOT / name).read_text() for name in ('README.md', '.ci/run', 'tests/commands/test_tools.py')]
    keys = re.findall(r'\b((?:train|val|test|model|optim)_?\w*(?:\.\w+)+)=', '\n'.join(texts))
    assert {'train_dataloader.dataset.data_root', 'model.test_cfg.score_thr', 'train_cfg.max_epochs'} <= set(keys)
    quickstart = read(str(ROOT / 'configs/quickstart/retinanet_pvtv2-b0_fpn_shapes.py'))
    for key in set(keys) - {'model.test_cfg.conf'}:  # which is there to be warned about
        segmentation = key in ('train_cfg.max_iters',) or 'seg_map_path' in key or 'img_path' in key
        assert check_options(read(UPERNET) if segmentation else quickstart, {key: 1}) == []


WRONG = [
    ('optim_wraper.optimizer.lr', r"key of the config 'optim_wraper': did you mean 'optim_wrapper'"),
    ('model.backbone.depht', r"key of model.backbone \(ResNet\) 'depht': did you mean 'depth'"),
    ('model.test_cfg.nms.iou_treshold', r"'iou_treshold': did you mean 'iou_threshold'"),
    ('model.bbox_head.num_clases', r"\(RetinaHead\) 'num_clases': did you mean 'num_classes'"),
    ('train_dataloader.datset.ann_file', r"key of train_dataloader 'datset': did you mean 'dataset'"),
    ('train_dataloader.dataset.ann_fil', r"\(CocoDataset\) 'ann_fil': did you mean 'ann_file'"),
    ('train_dataloader.sampler.shufle', r"\(DefaultSampler\) 'shufle': did you mean 'shuffle'"),
    ('train_dataloader.dataset.pipeline.2.sacle', r"\(Resize\) 'sacle': did you mean 'scale'"),
    ('train_dataloader.dataset.pipeline.22.scale', r"is a list, expected an index from 0 to 4, found '22'"),
    ('train_dataloader.dataset.pipeline.x.scale', r"is a list, expected an index from 0 to 4, found 'x'"),
    ('train_dataloader.batch_size.x', 'train_dataloader.batch_size is 2, which has no keys'),
    ('model.backbone.0.depth', 'model.backbone is not a list that has an item 0'),
    ('default_hooks.checkpont.interval', r"key of default_hooks 'checkpont': did you mean 'checkpoint'"),
    ('optim_wrapper.optimizer.lrr', r"\(SGD\) 'lrr': did you mean 'lr'"),
    ('optim_wrapper.clip_grad.max_nrm', r"key of optim_wrapper.clip_grad 'max_nrm': did you mean 'max_norm'"),
    ('optim_wrapper.paramwise_cfg.norm_decay', r"'norm_decay': did you mean 'norm_decay_mult'"),
    ('optim_wrapper.paramwise_cfg.decay_rate', r"'decay_rate': did you mean 'dwconv_decay_mult'"),
    ('optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mul', r"'lr_mul': did you mean 'lr_mult'"),
    ('param_scheduler.0.ende', r"\(LinearLR\) 'ende': did you mean 'end'"),
    ('val_evaluator.metrik', r"\(CocoMetric\) 'metrik': did you mean 'metric'"),
    ('visualizer.vis_backends.0.init_kwargs.entity', r"\(LocalVisBackend\) 'init_kwargs'"),
    ('randomness.sed', r"key of randomness 'sed': did you mean 'seed'"),
    ('env_cfg.cudnn_bench', r"'cudnn_bench': did you mean 'cudnn_benchmark'"),
    ('env_cfg.mp_cfg.opencv_threads', r"'opencv_threads': did you mean 'opencv_num_threads'"),
    ('auto_scale_lr.enabled', r"'enabled': did you mean 'enable'"),
    ('train_cfg.max_epoch', r"'max_epoch': did you mean 'max_epochs'"),
    ('num_classes', r"'num_classes'.*Deeper keys of this name: model.bbox_head.num_classes"),
    ('data_preprocessor.mean', 'the model has its own data_preprocessor, which counts: model.data_preprocessor.mean'),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(('key', 'message'), WRONG)
def test_keys_that_nothing_reads_are_answered_with_the_nearest(key, message):
    with pytest.raises(ValueError, match=rf'--cfg-options {re.escape(key)}: .*{message}'):
        check_options(read(RETINANET), {key: 5})


UNSURE = [
    *[(RETINANET, f'model.test_cfg.{key}', rf"test_cfg '{key}': did you mean '{nearest}'") for key, nearest in [
        ('the', 'iou_thr'), ('conf', 'conf_thr'), ('iou', 'iou_thr'), ('score_threshold', 'score_thr'),
        ('scoer_thr', 'score_thr'), ('rpn_proposal', 'rpn'), ('mode', 'mask_overlap'),
    ]],
    (RETINANET, 'model.train_cfg.assinger', "'assinger': did you mean 'assigner'"),
    (RETINANET, 'train_dataloader.dataset.filter_cfg.min_sise', "'min_sise': did you mean 'min_size'"),
    (RETINANET, 'train_dataloader.dataset.metainfo.clases', "'clases': did you mean 'classes'"),
    (RETINANET, 'train_dataloader.dataset.data_prefix.imgs', "'imgs': did you mean 'img'"),
    (RETINANET, 'env_cfg.dist_cfg.bakend', "'bakend': did you mean 'backend'"),
    (MASK_RCNN, 'model.test_cfg.score_thr', "'score_thr': .* 'rpn', 'rcnn', 'panoptic', 'rpn_proposal'"),
    (MASK_RCNN, 'model.test_cfg.rcnn.conf', "key of model.test_cfg.rcnn 'conf': did you mean 'conf_thr'"),
    (MASK_RCNN, 'model.train_cfg.rpn_proposal.nms_per', "'nms_per': did you mean 'nms_pre'"),
    (MASK_RCNN, 'model.train_cfg.rpn.assigner_', "'assigner_': did you mean 'assigner'"),
    (CASCADE, 'model.train_cfg.rcnn.2.pos_weigt', r"model.train_cfg.rcnn.2 'pos_weigt': did you mean 'pos_weight'"),
    (UPERNET, 'model.test_cfg.crop', "'crop': did you mean 'crop_size'"),
    (UPERNET, 'model.test_cfg.score_thr', "'score_thr': did you mean 'scale_factor'"),
]  # fmt: skip


@pytest.mark.parametrize(('name', 'key', 'message'), UNSURE)
def test_keys_of_which_nobody_can_tell_are_set_with_a_warning(name, key, message):
    cfg = read(name)
    [warning] = merge_options(cfg, {key: 5})
    assert re.fullmatch(rf'--cfg-options {re.escape(key)}: unknown .*{message}.*\. It is set all the same', warning)
    assert look_up(cfg.to_dict(), key) == 5


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        (
            RETINANET,
            {'model.test_cfg': dict(nms=dict(iou=0.5))},
            r"model.test_cfg.nms \(nms\) 'iou': .* 'iou_threshold'",
        ),
        (RETINANET, {'model.neck': dict(_delete_=True, type='FPN', in_chanels=[1])}, r"\(FPN\) 'in_chanels'"),
        (RETINANET, {'model': dict(backbone=dict(init_cfg=dict(chekpoint='a')))}, r"\(Pretrained\) 'chekpoint'"),
        (RETINANET, {'custom_hooks': [dict(type='EarlyStoppingHook', monitr='a')]}, r"custom_hooks.0 .*'monitr'"),
        (RETINANET, {'custom_hooks.0.type': 'EMAHook'}, 'custom_hooks is not a list that has an item 0'),
        (RETINANET, {'optim_wrapper': dict(optimizer=dict(lrr=1))}, r"key of optim_wrapper.optimizer \(SGD\) 'lrr'"),
        (RETINANET, {'param_scheduler': [dict(type='ConstantLR', facto=1)]}, r"param_scheduler.0 .*'facto'"),
        (RETINANET, {'train_dataloader.dataset.pipeline': [dict(type='Resize', scal=1)]}, r"pipeline.0 .* 'scal'"),
        (RETINANET, {'train_dataloader.dataset.pipeline.2': dict(scal=1)}, r"pipeline.2 \(Resize\) 'scal'"),
        (RETINANET, {'default_hooks': dict(checkpont=dict(interval=1))}, r"key of default_hooks 'checkpont'"),
        (RETINANET, {'model.backbone.depth': dict(a=1)}, 'model.backbone.depth is 50, which has no keys'),
        (RETINANET, {'model.neck': dict(_delete_=True, type='FPN'), 'model.neck.in_chanels': [1]}, "'in_chanels'"),
        (RETINANET, {'train_cfg': 1, 'train_cfg.max_epochs': 2}, 'train_cfg is set to 1, which has no keys'),
        (UPERNET, {'model.decode_head': dict(sampler=dict(type='OHEMPixelSampler', tresh=1))}, "'tresh': .* 'thresh'"),
    ],
)
def test_keys_inside_of_values_are_checked(name, options, message):
    with pytest.raises(ValueError, match=message):
        check_options(read(name), options)


def test_values_with_keys_are_merged():
    cfg, bare = read(UPERNET), read(UPERNET)
    options = {
        'optim_wrapper': dict(clip_grad=dict(max_norm=1)),  # which is None
        'model.test_cfg': dict(mode='slide', crop_size=(8, 8), stride=(4, 4)),
        'param_scheduler': [dict(type='PolyLR', power=0.5)],
        'model.backbone.init_cfg': dict(type='Pretrained', checkpoint='a', map_location={0: 'cpu'}),
        'model.auxiliary_head': dict(_delete_=True, type='FCNHead', in_channels=3, channels=2, num_classes=2),
    }
    options['model.test_cfg.stride'] = (2, 2)
    kept = str(options)
    assert merge_options(cfg, options) == []
    assert str(options) == kept
    assert cfg.optim_wrapper == {**bare.optim_wrapper, 'clip_grad': dict(max_norm=1)}
    assert cfg.model.test_cfg == dict(mode='slide', crop_size=(8, 8), stride=(2, 2))
    assert cfg.param_scheduler == options['param_scheduler']
    assert cfg.model.auxiliary_head == dict(type='FCNHead', in_channels=3, channels=2, num_classes=2)


def test_mmengine_alone_accepts_a_mistyped_key():
    cfg = read(RETINANET)
    cfg.merge_from_dict({'optim_wraper.optimizer.lr': 5})
    assert cfg.optim_wrapper.optimizer.lr == 0.01
    with pytest.raises(ValueError, match="did you mean 'optim_wrapper'"):
        merge_options(read(RETINANET), {'optim_wraper.optimizer.lr': 5})


@pytest.mark.parametrize(
    ('name', 'key', 'holders'),
    [
        (RETINANET, 'data_root', ['train_dataloader.dataset.data_root', 'val_dataloader.dataset.data_root']),
        (RETINANET, 'train_pipeline.2.scale', ['train_dataloader.dataset.pipeline.2.scale']),
        (RETINANET, 'dataset_type', ['train_dataloader.dataset.type', 'val_dataloader.dataset.type']),
        (RETINANET, 'backend_args', ['train_dataloader.dataset.pipeline.0.backend_args']),
        (RETINANET, 'vis_backends.0.type', ['visualizer.vis_backends.0.type']),
        (UPERNET, 'optimizer.lr', ['optim_wrapper.optimizer.lr']),
        (UPERNET, 'crop_size', ['model.data_preprocessor.size', 'train_dataloader.dataset.pipeline.3.crop_size']),
        (str(ROOT / 'configs/quickstart/retinanet_pvtv2-b0_fpn_shapes.py'), 'max_epochs',
         ['train_cfg.max_epochs', 'param_scheduler.1.T_max']),
        (str(ROOT / 'configs/bccd/retinanet_pvtv2-b0_fpn_bccd.py'), 'num_classes', ['model.bbox_head.num_classes']),
    ],
)  # fmt: skip
def test_variables_of_the_config_file_are_refused_and_their_holders_named(name, key, holders):
    cfg = read(name)
    with pytest.raises(ValueError, match='was used while the config file was read, and nothing reads it') as error:
        check_options(cfg, {key: 7})
    named = str(error.value).partition('Keys that hold its value: ')[2].split(', ')
    for holder in holders:
        assert holder in named
        check_options(cfg, {holder: 7})


def test_a_variable_is_without_effect_on_the_bare_stack():
    cfg = read(RETINANET)
    cfg.merge_from_dict({'data_root': '/elsewhere'})
    assert cfg.train_dataloader.dataset.data_root == 'data/coco/'


def test_merging_gives_keys_to_a_setting_that_is_none():
    cfg, bare = read(UPERNET), read(UPERNET)
    assert cfg.optim_wrapper.clip_grad is None
    with pytest.raises(TypeError, match='cannot inherit'):
        bare.merge_from_dict({'optim_wrapper.clip_grad.max_norm': 1})
    merge_options(cfg, {'optim_wrapper.clip_grad.max_norm': 1, 'train_dataloader.dataset.pipeline.3.crop_size': (8, 8)})
    assert cfg.optim_wrapper.clip_grad == dict(max_norm=1)
    assert cfg.train_dataloader.dataset.pipeline[3].crop_size == (8, 8)
    assert len(cfg.train_dataloader.dataset.pipeline) == len(bare.train_dataloader.dataset.pipeline)


def test_config_is_left_as_it_was():
    cfg = read(RETINANET)
    before = cfg.pretty_text
    check_options(cfg, {'model.backbone._delete_': True, 'model.backbone.type': 'vitdense.PVT'})
    assert cfg.pretty_text == before


def test_list_of_data_sets():
    cfg = read(RETINANET)
    first = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[first, first])
    check_options(
        cfg, {'train_dataloader.dataset.datasets.1.ann_file': 'a', 'train_dataloader.dataset.lazy_init': True}
    )
    with pytest.raises(ValueError, match='datasets is a list, expected an index from 0 to 1'):
        check_options(cfg, {'train_dataloader.dataset.datasets.2.ann_file': 'a'})
    with pytest.raises(ValueError, match=r"\(CocoDataset\) 'anfile': did you mean 'ann_file'"):
        check_options(cfg, {'train_dataloader.dataset.datasets.0.anfile': 'a'})


def test_code_of_the_user_may_read_keys_that_nobody_knows():
    cfg = Config(dict(model=dict(test_cfg=dict()), custom_imports=dict(imports='my_hooks.totals'), grand_total=1))
    for key in ('grand_total', 'grand_totals', 'model.test_cfg.shoe_size'):
        [warning] = check_options(cfg, {key: 2})
        assert warning.startswith(f'--cfg-options {key}: ')
    for imports in (None, ['vitdense', 'mmdet.models']):
        cfg.custom_imports = dict(imports=imports) if imports else None
        with pytest.raises(ValueError, match='grand_total was used while the config file was read'):
            check_options(cfg, {'grand_total': 2})
        with pytest.raises(ValueError, match="unknown key of the config 'grand_totals'"):
            check_options(cfg, {'grand_totals': 2})


class Closed(BaseModel):
    def __init__(self, width: int, **kwargs) -> None:
        super().__init__(**kwargs)


class Open(BaseModel):
    def __init__(self, width: int, **kwargs) -> None:
        super().__init__()
        self.net = dict(**kwargs)


class Half(Open):
    def __init__(self, depth: int, **kwargs) -> None:
        kwargs.setdefault('bias', True)
        super().__init__(**kwargs)


def test_classes_of_the_user():
    with MODELS.switch_scope_and_registry(None):
        for kind in (Closed, Open, Half):
            MODELS.register_module(module=kind, force=True)
    for kind in (Closed, Open, Half):
        cfg = Config(dict(model=dict(type=kind.__name__)))
        assert check_options(cfg, {'model.width': 2, 'model.init_cfg': None}) == []
        if kind is Closed:
            with pytest.raises(ValueError, match=r"model \(Closed\) 'widht': did you mean 'width'"):
                check_options(cfg, {'model.widht': 2})
            with pytest.raises(ValueError, match=r"model \(Closed\) 'depth'"):
                check_options(cfg, {'model.depth': 2})
        else:
            [warning] = check_options(cfg, {'model.widht': 2})
            assert "'widht': did you mean 'width'" in warning
    assert hands_on(Open)
    assert not hands_on(Closed)


def test_python_style_configs_are_checked_alike(tmp_path):
    """Types are classes there, of which mmengine keeps the names."""
    path = tmp_path / 'config.py'
    path.write_text(
        'from mmdet.models import FPN, ResNet, RetinaNet\n'
        'from mmengine.hooks import CheckpointHook\n'
        'model = dict(type=RetinaNet, backbone=dict(type=ResNet, depth=18), neck=dict(type=FPN), test_cfg=dict())\n'
        'default_hooks = dict(checkpoint=dict(type=CheckpointHook))\n'
        'default_scope = None\n'
    )
    cfg = Config.fromfile(path)
    assert check_options(cfg, {'model.backbone.with_cp': True, 'model.test_cfg.score_thr': 1}) == []
    for key in (
        'model.backbone.with_cpp',
        'model.neck.in_chanels',
        'model.tset_cfg',
        'default_hooks.checkpoint.intervall',
    ):
        with pytest.raises(ValueError, match=rf'--cfg-options {key}: unknown key of .*: did you mean'):
            check_options(cfg, {key: True})
    assert len(check_options(cfg, {'model.test_cfg.conf': 1})) == 1


def test_known_keys_are_all_that_the_installed_runner_reads():
    names = set(re.findall(r"\bcfg(?:\.get\(|\[)\s*'(\w+)'", inspect.getsource(Runner)))
    assert len(names) > 25
    place = PLACES['']
    assert names == (arguments(Runner) - {'cfg'} | set(place[1].split())) - {'runner_type', 'tta_model', 'tta_pipeline'}
    popped = set(re.findall(r"dataloader_cfg\.pop\(\s*'(\w+)'", inspect.getsource(Runner.build_dataloader)))
    assert popped <= arguments(DataLoader) | set(PLACES['train_dataloader'][1].split())
    environment = set(re.findall(r"env_cfg\.get\('(\w+)'", inspect.getsource(Runner.setup_env)))
    assert environment == set(PLACES['env_cfg'][1].split())


def test_arguments_go_up_the_base_classes():
    ours = arguments(resolve('vitdense.ShapesDataset', 'mmdet'))
    assert {'split', 'ann_file', 'filter_cfg', 'indices', 'return_classes'} <= ours
    assert not hands_on(resolve('RetinaHead', 'mmdet'))  # which hands all on to AnchorHead
    assert {'reg_decoded_bbox', 'stacked_convs'} <= arguments(resolve('RetinaHead', 'mmdet'))
    assert hands_on(resolve('EMAHook', 'mmengine'))
    backbone = resolve('mmdet.ResNet', 'mmseg')
    assert backbone.__module__.startswith('mmdet')
    assert not hands_on(backbone)
    assert 'norm_eval' in arguments(backbone)
    assert resolve('torch.optim.SGD', 'mmdet') is resolve('SGD', 'mmseg')
    assert resolve('NoSuchClass', 'mmdet') is None


def test_plain_and_lazy_nodes_are_read_alike():
    cfg = Config(dict(model=ConfigDict(type='mmdet.models.backbones.ResNet', depth=18)))
    check_options(cfg, {'model.with_cp': True})
    with pytest.raises(ValueError, match="'with_cpp': did you mean 'with_cp'"):
        check_options(cfg, {'model.with_cpp': True})
