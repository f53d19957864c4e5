"""Files that are data run no code, whichever function of the OpenMMLab packages reads them."""

import io
import json
import os
import pickle
from argparse import Namespace
from functools import partial
from pathlib import Path

import mmengine
import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer, init_detector
from mmdet.models.backbones import ResNet
from mmengine.config import Config
from mmengine.registry import FUNCTIONS, MODELS, OPTIMIZERS
from mmengine.runner import Runner, load_checkpoint
from mmengine.structures import InstanceData
from mmseg.apis import MMSegInferencer, init_model
from mmseg.utils.io import datafrombytes
from support.bounded import Harm, refusal
from support.trained import work_dir

import vitdense
from vitdense.checkpoint.write import rewrite
from vitdense.config.cfg_options import merge_options
from vitdense.config.load import load_config
from vitdense.config.runtime import read_config
from vitdense.models.backbones import PVTv2
from vitdense.predict.load import load_model
from vitdense.untrusted.configs import UntrustedError

PROGRAM = 'import os\nos.mkdir("harm")\n'


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """A folder in which a folder ``harm`` would appear, and in which modules are found."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'evil.py').write_text(PROGRAM)
    yield tmp_path
    assert not (tmp_path / 'harm').exists()


def hostile(path: Path, form: str = 'zip') -> str:
    content = {'state_dict': {'a': torch.zeros(2)}, 'meta': Harm(Path('harm'))}
    if form == 'pickle':
        path.write_bytes(pickle.dumps(content))
    elif form == 'npz':
        with path.open('wb') as file:
            np.savez(file, a=np.array([content['meta']]))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == 'zip')
    return str(path)


@pytest.fixture(scope='module')
def folders(tmp_path_factory) -> dict[str, Path]:
    """Work dirs of a small detector and segmentor."""
    home = tmp_path_factory.mktemp('trained')
    return {kind: work_dir(kind, home) for kind in ('detector', 'maps')}


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


# Checkpoints


@pytest.mark.parametrize('form', ['zip', 'legacy', 'pickle', 'npz'])
def test_no_initializer_runs_code(form, home):
    path = hostile(home / 'evil.pth', form)
    for kind in ('Pretrained', 'vitdense.Pretrained'):
        init_cfg = dict(type=kind, checkpoint=path)
        backbone = PVTv2('b0', init_cfg=init_cfg) if '.' in kind else ResNet(18, init_cfg=init_cfg)
        with pytest.raises(ValueError, match=r'evil\.pth'):
            backbone.init_weights()
    with pytest.raises(ValueError, match=r'evil\.pth'):
        load_checkpoint(ResNet(18), path, 'cpu')


def test_no_way_to_a_model_runs_code(folders, home):
    path = hostile(home / 'evil.pth')
    detector, maps = (str(next(folders[kind].glob('*.py'))) for kind in ('detector', 'maps'))
    ways = [
        lambda: init_detector(detector, path, device='cpu'),
        lambda: DetInferencer(detector, path, device='cpu'),
        lambda: DetInferencer(weights=path, device='cpu'),
        lambda: init_model(maps, path, device='cpu'),
        lambda: MMSegInferencer(maps, path, device='cpu'),
        lambda: vitdense.load(detector, path),
        lambda: load_model(load_config(maps), path, 'cpu'),
        lambda: rewrite(path, home / 'b.pth', 'vitdense', False),
    ]
    for way in ways:
        with pytest.raises(ValueError, match='to load them could run any code'):
            way()


def test_the_config_in_a_checkpoint_is_data(folders, home):
    content = torch.load(folders['detector'] / 'best.pth', weights_only=True)
    text = Config.fromfile(next(folders['detector'].glob('*.py'))).pretty_text
    content['message_hub'] = {'runtime_info': {'cfg': text}}
    torch.save(content, 'whole.pth')
    assert DetInferencer(weights='whole.pth', device='cpu').model.backbone.out_channels == (32, 64, 160, 256)
    for changed, message in (
        (PROGRAM, r'is a program \(line \d+: import os\)'),
        ('a = __import__("os").mkdir("harm")', 'is a program'),
        ('a = dict(b=[c.d for c in ()])', 'is a program'),
        ("custom_imports = dict(imports=['evil'])", "which imports 'evil'"),
        ("model = dict(type='subprocess.Popen', args=['mkdir', 'harm'])", "which imports 'subprocess'"),
        ('a = (', 'cannot be read'),
    ):
        content['message_hub']['runtime_info']['cfg'] = f'{text}\n{changed}'
        torch.save(content, 'evil.pth')
        with pytest.raises(UntrustedError, match=message):
            DetInferencer(weights='evil.pth', device='cpu')
    assert Config.fromstring('import math\na = math.pi', '.py').a > 3, 'what a program says by itself is its own'


@pytest.mark.parametrize(
    ('text', 'message'), [(PROGRAM, 'is a program'), ("custom_imports = dict(imports=['evil'])", 'evil')]
)
def test_resuming_runs_no_code(text, message):
    class Resumed(Runner):
        train_loop = Namespace()

        def __init__(self) -> None:
            pass

        def load_checkpoint(self, *args, **kwargs) -> dict:
            return dict(meta=dict(epoch=1, iter=1, config=text))

    with pytest.raises(UntrustedError, match=message):
        Resumed().resume('a.pth')


def test_timm_unpickles_nothing(home):
    import timm

    with pytest.raises((pickle.UnpicklingError, RuntimeError), match='mkdir'):
        timm.create_model('resnet10t', checkpoint_path=hostile(home / 'evil.pth'))


# Pickles of data


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_data_are_read(protocol):
    proposals = InstanceData(bboxes=np.arange(8.0).reshape(2, 4), scores=torch.tensor([0.5, 0.25]))
    found = dict(
        labels=torch.tensor([1, 2]), masks=[dict(size=[3, 4], counts=b'abc')], names={'cat'}, area=np.float32(2)
    )
    Path('a.pkl').write_bytes(pickle.dumps({'a/b.jpg': proposals, 'found': [found, (found,)]}, protocol))
    content = mmengine.load('a.pkl')
    assert isinstance(content['a/b.jpg'].bboxes, np.ndarray)
    assert content['a/b.jpg'].bboxes.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert content['a/b.jpg'].scores.tolist() == [0.5, 0.25]
    assert len(content['a/b.jpg'][:1]) == 1
    assert content['found'][1][0]['labels'].tolist() == [1, 2]
    assert content['found'][0]['masks'] == [dict(size=[3, 4], counts=b'abc')]
    assert (content['found'][0]['names'], content['found'][0]['area']) == ({'cat'}, 2)


def test_pickles_of_data_run_no_code():
    stored = io.BytesIO()
    torch.save(Harm(Path('harm')), stored)
    storage = pickle.dumps(stored.getvalue(), 2)[2:-1]
    contents = [
        pickle.dumps([Harm(Path('harm'))]),
        b'\x80\x02ctorch.storage\n_load_from_bytes\n' + storage + b'\x85R.',
        b'\x80\x02cmmengine.structures.instance_data\nInstanceData\nN}X\x02\x00\x00\x00toK\x01s\x86b.',
        b'\x80\x02cmmengine.structures\nInstanceData.__init__\n.',
        b'\x80\x02ccopyreg\n_reconstructor\nctorch._utils\n_rebuild_tensor_v2\nc__builtin__\nobject\nN\x87R.',
    ]
    for content in contents:
        Path('a.pkl').write_bytes(content)
        with pytest.raises((UntrustedError, pickle.UnpicklingError)):
            mmengine.load('a.pkl')
        with pytest.raises((UntrustedError, pickle.UnpicklingError)):
            datafrombytes(content, backend='pickle')
    assert InstanceData.to is not 1  # noqa: F632
    value: list = []
    for _ in range(40):
        value = [value, value]
    Path('a.pkl').write_bytes(pickle.dumps(value))
    assert 'holds more than' in refusal(lambda: mmengine.load('a.pkl'))


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (pickle.dumps([Harm(Path('harm'))]), 'needs posix.mkdir'),
        (b'', 'is no pickle of data, or is damaged: EOFError'),
        (pickle.dumps(dict(a=1))[:-3], 'is no pickle of data, or is damaged: '),
        (b'no pickle', 'is no pickle of data, or is damaged: '),
    ],
)
def test_a_pickle_is_named_with_what_is_wrong(content, message, tmp_path):
    (tmp_path / 'a.pkl').write_bytes(content)
    with pytest.raises(UntrustedError, match=rf'/a\.pkl {message}'):
        mmengine.load(str(tmp_path / 'a.pkl'))
    with pytest.raises(UntrustedError, match=f'^a pickle {message}'):
        mmengine.load(io.BytesIO(content), file_format='pkl')


def test_the_hierarchy_of_open_images_is_a_table(home):
    from mmdet.datasets import OpenImagesChallengeDataset

    dataset = Namespace(backend_args=None)
    np.save('table.npy', np.eye(3))
    read = OpenImagesChallengeDataset._get_relation_matrix
    assert read(dataset, 'table.npy').tolist() == [[1, 0], [0, 1]]
    np.save('evil.npy', np.array([[Harm(Path('harm'))]]))
    with pytest.raises(ValueError, match='allow_pickle=False'):
        read(dataset, 'evil.npy')


# Configs


TAGS = [
    ('a: !!python/object/apply:os.mkdir ["harm"]', 'could not determine a constructor .* could run code'),
    ('a: !!python/name:os.system ""', 'could run code'),
    ('a: &a [*a]', 'within itself'),
]
CONFIGS = [
    ({'model': {'type': 'subprocess.Popen', 'args': ['mkdir', 'harm']}}, "model.type is 'subprocess.Popen'"),
    ({'model': {'type': 'builtins.eval'}}, 'model.type'),
    ({'model': {'backbone': [{'type': 'os.system'}]}}, r'model.backbone.0.type'),
    ({'model': {'type': '{{ $ABSENT:os.system }}'}}, "model.type is 'os.system'"),
    ({'model': {'_scope_': 'evil', 'type': 'ResNet'}}, 'model._scope_'),
    ({'default_scope': 'evil'}, 'default_scope'),
    ({'optim_wrapper': {'constructor': 'evil.X'}}, 'optim_wrapper.constructor'),
    ({'custom_imports': {'imports': ['vitdense', 'evil']}}, "custom_imports is 'evil'"),
    ({'custom_imports': {'imports': 'evil'}}, "custom_imports is 'evil'"),
    ({'_base_': 'evil.py'}, "_base_ is 'evil.py', and Python is a program"),
    ({'_base_': ['inner.json']}, "_base_ is 'evil.py'"),
    ({'_base_': 'evil::a.py'}, "_base_ is 'evil'"),
    ({'_base_': 'vitdense::../../evil.py'}, 'leads out of the package'),
    ({'_base_': 'vitdense::/tmp/evil.py'}, 'leads out of the package'),
    ({'a': nested(600)}, '500 deep|too deep'),
]
FILES = [
    *(('a.yaml', text, message) for text, message in TAGS),
    *((name, json.dumps(content), message) for content, message in CONFIGS for name in ('a.json', 'a.yaml')),
]


@pytest.mark.parametrize(('name', 'text', 'message'), FILES)
def test_configs_in_json_and_yaml_are_data(name, text, message, home):
    (home / 'inner.json').write_text('{"_base_": "evil.py"}')
    (home / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        load_config(name)
    with pytest.raises(ValueError, match=message):
        init_detector(name, device='cpu')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ({'val_evaluator': {'type': 'CityscapesMetric', 'output_dir': 'keep'}}, 'val_evaluator.output_dir'),
        ({'val_evaluator': {'outfile_prefix': '../new'}}, 'val_evaluator.outfile_prefix'),
        ({'val_evaluator': {'outfile_prefix': '~/new'}}, 'val_evaluator.outfile_prefix'),
        ({'default_hooks': {'checkpoint': {'out_dir': '/tmp/new'}}}, 'default_hooks.checkpoint.out_dir'),
        ({'default_hooks': {'checkpoint': {'filename_tmpl': '../{}.pth'}}}, 'without folders'),
    ],
)
def test_configs_that_are_data_write_to_new_places(content, message, home):
    """Some metrics of mmdet and mmseg empty theirs."""
    (home / 'keep').mkdir()
    for name in ('a.json', 'a.yaml'):
        (home / name).write_text(json.dumps(content))
        with pytest.raises(UntrustedError, match=message):
            read_config(Namespace(config=name, cfg_options=None))
    (home / 'a.py').write_text(f'locals().update({content!r})')
    read_config(Namespace(config='a.py', cfg_options=None))
    (home / 'a.json').write_text('{"work_dir": "/tmp/new", "val_evaluator": {"outfile_prefix": "new/results"}}')
    assert read_config(Namespace(config='a.json', cfg_options=None)).work_dir == '/tmp/new'


def test_aliases_of_yaml_are_bounded(home):
    lines = ['a0: &a0 [x, y]'] + [f'a{k}: &a{k} [{", ".join([f"*a{k - 1}"] * 10)}]' for k in range(1, 12)]
    merged = ['a0: &a0 {x: 1}'] + [f'a{k}: &a{k} {{<<: [{", ".join([f"*a{k - 1}"] * 10)}]}}' for k in range(1, 12)]
    for text in (lines, merged):
        (home / 'a.yaml').write_text('\n'.join(text))
        assert 'holds more than 1000000 values' in refusal(lambda: load_config('a.yaml'))


def test_what_mmengine_writes_is_read(home):
    cfg = load_config('vitdense::quickstart/retinanet_pvtv2-b0_fpn_shapes.py')
    for name in ('a.json', 'a.yaml'):
        cfg.dump(name)
        assert load_config(name).model == cfg.model
    assert Config.fromfile('a.yaml').train_dataloader == cfg.train_dataloader, 'tuples are a tag'
    (home / 'b.json').write_text('{"_base_": ["a.yaml"], "work_dir": "work_dirs/b"}')
    assert load_config('b.json').model == cfg.model
    (home / 'c.py').write_text(
        "_base_ = 'b.json'\ncustom_imports = dict(imports=['evil'], allow_failed_imports=True)\n"
    )
    (home / 'evil.py').write_text('')
    assert load_config('c.py').model == cfg.model, 'a config in Python is a program'


def test_options_name_the_packages_of_the_stack_and_of_the_config():
    def cfg(**settings) -> Config:
        return Config(dict(model=dict(type='RetinaNet', backbone=dict(type='mine.Backbone')), **settings))

    for kind in ('subprocess.Popen', 'evil.X'):
        with pytest.raises(UntrustedError, match=f"--cfg-options: model.type is '{kind}'"):
            merge_options(cfg(), {'model.type': kind})
        with pytest.raises(UntrustedError, match=r'--cfg-options: model\.neck\.type'):
            merge_options(cfg(), {'model': dict(neck=dict(type=kind))})
    one = cfg(custom_imports=dict(imports=['my.heads']))
    merge_options(one, {'model.type': 'my.Detector'})
    merge_options(one, {'model.type': 'mine.Detector'})
    assert one.model.type == 'mine.Detector'


def test_only_parts_of_a_model_or_run_are_built():
    names = ['subprocess.Popen', 'builtins.eval', 'os.mkdir', 'posix.mkdir', 'torch.load', 'torch.hub.load',
             'mmengine.fileio.rmtree', 'mmdet.apis.init_detector', 'torchvision.datasets.CIFAR10',
             'torch.distributed.elastic.multiprocessing.subprocess_handler.SubprocessHandler']  # fmt: skip
    for name in names:
        with pytest.raises(UntrustedError, match='is no part of a model or of a run'):
            MODELS.build(dict(type=name))
    for name in ('evil', 'evil.X', 'torch.os.mkdir', 'numpy.os.mkdir'):
        with pytest.raises(KeyError):
            MODELS.build(dict(type=name))


@pytest.mark.parametrize(
    ('registry', 'name'),
    [
        (MODELS, 'torch.nn.modules.linear.Linear'),
        (MODELS, 'mmdet.models.backbones.resnet.ResNet'),
        (MODELS, 'mmengine.model.BaseModel'),
        (MODELS, 'vitdense.PVT'),
        (MODELS, 'mmdet.RetinaNet'),
        (OPTIMIZERS, 'torch.optim.adamw.AdamW'),
        (FUNCTIONS, 'mmengine.dataset.utils.pseudo_collate'),
    ],
)
def test_parts_are_found_by_their_full_names(registry, name):
    assert registry.get(name).__name__ == name.rpartition('.')[2]


# Files that are none


def test_devices_and_pipes_are_no_files(home):
    os.mkfifo('pipe.json')
    for path, kind in (('pipe.json', 'a pipe'), ('/dev/zero', 'a device')):
        backend = mmengine.fileio.LocalBackend()
        for read in (backend.get, backend.get_text):
            assert f'{path} is {kind}, expected a regular file' in refusal(partial(read, path), OSError)
    assert 'is a pipe' in refusal(lambda: mmengine.load('pipe.json'), OSError)
