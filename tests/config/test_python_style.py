"""A config in mmengine's Python style is the config of the same names, for all that comes after."""

import subprocess
import sys
from pathlib import Path

import mmcv.transforms
import mmdet.registry
import pytest
from mmengine.config import Config
from support import ROOT

from vitdense.checks import Run, check
from vitdense.commands import parser_of
from vitdense.commands.prepare import choose_backbone
from vitdense.config.load import load_config
from vitdense.config.runtime import read_config

RUNTIME = """
default_scope = {scope!r}
metainfo = dict(classes=('a', 'b'))
loader = dict(
    batch_size=2, num_workers=0, persistent_workers=True, sampler=dict(type={DefaultSampler}, shuffle=True),
    dataset=dict(type={Data}, data_root='data', metainfo=metainfo, pipeline=[dict(type={Load}), dict(type={Resize}, scale=(96, 64))]))
train_dataloader = loader
val_dataloader = loader
val_evaluator = {evaluator}
train_cfg = dict(type={Loop}, {length}, val_interval=1)
val_cfg = dict(type={ValLoop})
optim_wrapper = dict(type={OptimWrapper}, optimizer=dict(type={AdamW}, lr=1e-4, weight_decay=0.05), constructor={Constructor})
param_scheduler = [dict(type={Warmup}, by_epoch=False, begin=0, end=500)]
default_hooks = dict(checkpoint=dict(type={Checkpoint}, interval=1))
"""  # noqa: E501
DETECTOR = """
model = dict(
    type={RetinaNet}, data_preprocessor=dict(type={Preprocessor}, mean=[1.0] * 3, std=[2.0] * 3),
    backbone=dict(type={Backbone}, depth=18, init_cfg=dict(type={Pretrained}, checkpoint='torchvision://resnet18')),
    neck=dict(type={FPN}, in_channels=[64, 128, 256, 512], out_channels=32, start_level=1, num_outs=3),
    bbox_head=dict(type={RetinaHead}, num_classes=2, in_channels=32, loss_cls=dict(type={FocalLoss})))
"""
SEGMENTOR = """
model = dict(
    type={EncoderDecoder}, data_preprocessor=dict(type={Preprocessor}, mean=[1.0] * 3, std=[2.0] * 3),
    backbone=dict(type={Backbone}, depth=18, norm_cfg=dict(type={BN})),
    decode_head=dict(
        type={UPerHead}, in_channels=[64, 128, 256, 512], in_index=[0, 1, 2, 3], channels=32, num_classes=2))
"""
COMMON = dict(
    DefaultSampler='mmengine.dataset', ValLoop='mmengine.runner', OptimWrapper='mmengine.optim',
    AdamW='torch.optim', Load='mmcv.transforms:LoadImageFromFile', Pretrained='mmengine.model:PretrainedInit',
    Checkpoint='mmengine.hooks:CheckpointHook', Warmup='mmengine.optim:LinearLR',
    Constructor='vitdense.engine:LayerDecayOptimWrapperConstructor',
)  # fmt: skip
DETECTION = COMMON | dict(
    RetinaNet='mmdet.models', Preprocessor='mmdet.models:DetDataPreprocessor', Backbone='mmdet.models:ResNet',
    FPN='mmdet.models', RetinaHead='mmdet.models', FocalLoss='mmdet.models', Data='mmdet.datasets:CocoDataset',
    Resize='mmdet.datasets.transforms', Loop='mmengine.runner:EpochBasedTrainLoop',
    Metric='mmdet.evaluation:CocoMetric',
)  # fmt: skip
SEGMENTATION = COMMON | dict(
    EncoderDecoder='mmseg.models', Preprocessor='mmseg.models:SegDataPreProcessor', Backbone='mmseg.models:ResNet',
    UPerHead='mmseg.models', BN='torch.nn:BatchNorm2d', Data='mmseg.datasets:BaseSegDataset',
    Resize='mmseg.datasets.transforms', Loop='mmengine.runner:IterBasedTrainLoop', Metric='mmseg.evaluation:IoUMetric',
)  # fmt: skip
NAMES = {
    'PretrainedInit': 'Pretrained',
    'LayerDecayOptimWrapperConstructor': 'vitdense.LayerDecayOptimWrapperConstructor',
    'BatchNorm2d': 'BN',
}
"""What the classes are called in text style, where that is not their own name."""
TASKS = {
    'detection': ('mmdet', DETECTOR, DETECTION, 'max_epochs=2', "dict(type={Metric}, metric='bbox')"),
    'segmentation': ('mmseg', SEGMENTOR, SEGMENTATION, 'max_iters=8', '[dict(type={Metric})]'),
}


def write(folder: Path, task: str, style: str) -> str:
    """The config of a task: as text, as Python in one file or on a base, or as JSON or YAML."""
    scope, model, classes, length, evaluator = TASKS[task]
    names = {key: place.partition(':')[2] or key for key, place in classes.items()}
    python = style in ('python', 'read_base')
    shown = {key: name if python else repr(NAMES.get(name, name)) for key, name in names.items()}
    fields = dict(shown, scope=scope, length=length, evaluator=evaluator.format(**shown))
    text = (RUNTIME + model).format(**fields)
    if python:
        imports = [f'from {place.partition(":")[0]} import {names[key]}' for key, place in classes.items()]
        text = '\n'.join([*dict.fromkeys(imports), text])
    path = folder / f'{style}.py'
    path.write_text(text)
    if style == 'read_base':
        path = folder / 'on_base.py'
        path.write_text('from mmengine.config import read_base\nwith read_base():\n    from .read_base import *\n')
    if style in ('json', 'yaml'):
        path = folder / f'config.{style}'
        Config.fromfile(folder / f'{style}.py').dump(path)
    return str(path)


def read(path: str, *arguments: str) -> Config:
    return read_config(parser_of('train').parse_args([path, *arguments]))


def same(cfg: Config) -> dict:
    """Of a config, all that is not its own style: JSON has lists for tuples."""

    def plain(node):
        if isinstance(node, dict):
            return {key: plain(child) for key, child in node.items()}
        return [plain(child) for child in node] if isinstance(node, list | tuple) else node

    return plain(cfg.to_dict())


STYLES = ['python', 'read_base', 'json', 'yaml']
each_task = pytest.mark.parametrize('task', list(TASKS))
each_style = pytest.mark.parametrize('style', STYLES)


@each_task
@each_style
def test_every_style_is_the_same_config(tmp_path, task, style):
    text, other = (read(write(tmp_path, task, kind)) for kind in ('text', style))
    assert same(other) == same(text)
    assert other.train_dataloader.persistent_workers is False
    assert other.train_dataloader.dataset.type == ('vitdense.CocoDataset' if task == 'detection' else 'BaseSegDataset')
    assert other.default_hooks.checkpoint.type == 'vitdense.CheckpointHook'
    assert other.log_processor.get('by_epoch', True) is (task == 'detection')


@pytest.mark.slow
@each_task
@each_style
@pytest.mark.parametrize('name', ['pvt_tiny', 'vit_base_augreg'])
def test_the_backbone_is_swapped_in_every_style(tmp_path, task, style, name):
    changed = []
    for kind in ('text', style):
        args = parser_of('train').parse_args([write(tmp_path, task, kind), '--backbone', name, '--no-pretrained'])
        cfg = read_config(args)
        changed.append((choose_backbone(cfg, args), same(cfg)))
    assert changed[0] == changed[1]
    assert any(line.startswith(f'model.backbone: ResNet -> {name}') for line in changed[1][0])


@each_task
@each_style
def test_options_and_rules_in_every_style(tmp_path, task, style):
    options = ['--cfg-options', 'train_dataloader.sampler.type=InfiniteSampler', 'model.backbone.depth=50']
    said = []
    for kind in ('text', style):
        cfg = read(write(tmp_path, task, kind), *options)
        run = Run(cfg, steps=dict(train=3, val=3))
        said.append([str(case) for stage in ('parts', 'config', 'model') for case in check(run, stage)])
        assert cfg.model.backbone.depth == 50
    assert said[0] == said[1]
    assert any('warm-up that outlasts the training' in line for line in said[1])
    assert any('endless sampler' in line for line in said[1]) is (task == 'detection')


@each_style
def test_an_option_that_nothing_reads_is_refused_in_every_style(tmp_path, style):
    path = write(tmp_path, 'detection', style)
    with pytest.raises(ValueError, match=r"key of model.backbone \(ResNet\) 'depht': did you mean 'depth'"):
        read(path, '--cfg-options', 'model.backbone.depht=50')


@each_task
def test_what_is_saved_with_a_run_is_read_by_mmengine_alone(tmp_path, task):
    cfg = read(write(tmp_path, task, 'python'))
    cfg.dump(tmp_path / 'saved.py')
    saved = Config.fromfile(tmp_path / 'saved.py')
    assert same(saved) == same(cfg)
    assert not {'RetinaNet', 'EncoderDecoder', 'LinearLR'} & set(saved.keys()), 'imported names are no settings'


def test_classes_without_a_registered_name_and_functions(tmp_path, monkeypatch):
    (tmp_path / 'mine_of_python_style.py').write_text(
        'class Net:\n    pass\n\n\ndef collate(batch):\n    return batch\n'
    )
    monkeypatch.setattr(sys, 'path', [str(tmp_path), *sys.path])
    path = tmp_path / 'config.py'
    path.write_text(
        'import os\nfrom mine_of_python_style import Net, collate\nfrom mmcv.transforms import Resize\n'
        "default_scope = 'mmdet'\nroot = os.sep\n"
        'model = dict(type=Net, part=Net)\nloader = dict(collate_fn=dict(type=collate), step=dict(type=Resize))\n'
    )
    from mine_of_python_style import Net, collate

    cfg = load_config(str(path))
    assert cfg.model.type == 'mine_of_python_style.Net'
    assert cfg.model.part is Net
    assert cfg.loader.collate_fn.type is collate
    assert cfg.loader.step.type == 'mmengine.Resize', 'mmdet has another class of this name'
    assert mmdet.registry.TRANSFORMS.get('mmengine.Resize') is mmcv.transforms.Resize
    assert set(cfg.keys()) == {'default_scope', 'root', 'model', 'loader', 'custom_imports'}
    assert cfg.root == '/'


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('from mmdet.models import NoSuchNet\nmodel = dict(type=NoSuchNet)', 'Failed to import NoSuchNet from mmdet'),
        ('from mmengine.config import read_base\nwith read_base():\n    from .gone import *', 'gone.py not found'),
        ("_base_ = './gone.py'", 'gone.py'),
        ("_base_ = 'vitdense::_base_/models/retinanet_pvtv2.py'", 'no config .*retinanet_pvtv2-b0_fpn128.py'),
        ('model = dict(type=', 'SyntaxError'),
        ('model = missing', "NameError: name 'missing' is not defined"),
        ("custom_imports = dict(imports='no_such_module')", 'Failed to import no_such_module'),
    ],
)  # fmt: skip
def test_a_config_that_cannot_be_read_says_why(tmp_path, text, reason):
    path = tmp_path / 'config.py'
    path.write_text(text + '\n')
    with pytest.raises(ValueError, match=rf'(?s)config .*config.py.: .*{reason}'):
        load_config(str(path))


BASES = "_base_ = ['vitdense::_base_/models/retinanet_pvtv2-b0_fpn128.py', 'vitdense::_base_/runtime/default.py']\n"


def test_bases_of_vitdense_in_a_config_of_a_user(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(BASES)
    cfg = load_config(str(path))
    assert cfg.model.backbone == dict(type='vitdense.PVTv2', arch='b0')
    assert cfg.model.type == 'RetinaNet'
    assert '_scope_' not in cfg.visualizer, 'default_scope says where the types of our bases are'
    (tmp_path / 'config.json').write_text('{"_base_": "vitdense::quickstart/retinanet_pvtv2-b0_fpn_shapes.py"}')
    assert load_config(str(tmp_path / 'config.json')).model.neck.num_outs == 3


@pytest.mark.slow
def test_bases_of_an_installed_wheel(tmp_path):
    """The wheel has the configs in ``.mim``, where only an import of vitdense finds them."""
    home = tmp_path / 'site'
    (home / 'vitdense').mkdir(parents=True)
    for entry in (ROOT / 'vitdense').iterdir():
        (home / 'vitdense' / entry.name).symlink_to(entry)
    (home / 'vitdense/.mim').mkdir()
    (home / 'vitdense/.mim/configs').symlink_to(ROOT / 'configs')
    (tmp_path / 'config.py').write_text(BASES)
    code = (
        'import vitdense; from mmengine.config import Config; cfg = Config.fromfile("config.py"); '
        'print(vitdense.__file__, cfg.model.backbone.arch)'
    )
    result = subprocess.run(
        [sys.executable, '-c', code], cwd=tmp_path, env={'PYTHONPATH': str(home)}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[-2:] == [str(home / 'vitdense/__init__.py'), 'b0']
