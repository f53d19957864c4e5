"""What compat makes of the installed OpenMMLab packages: the import of mmcv's operators, its errors, the repairs."""

import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv import ops
from mmengine import hub
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.utils import package_utils
from support import ROOT

from vitdense.compat import after_import, install, patches, requirements
from vitdense.compat.mmcv_ext.unavailable import OpNotAvailableError


def python(code: str, *options: str, path: Path | None = None) -> subprocess.CompletedProcess:
    paths = os.pathsep.join(str(p) for p in (path, ROOT) if p)
    environment = {**os.environ, 'PYTHONPATH': paths}
    command = [sys.executable, *options, '-c', code]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT.anchor)


def output_of(code: str, path: Path | None = None) -> str:
    result = python(code, path=path)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def message_of(code: str, *options: str, path: Path | None = None) -> str:
    result = python(code, *options, path=path)
    assert result.returncode == 1
    return result.stderr.splitlines()[-1]


# --- the stand-in as a module ---


@pytest.mark.slow
def test_mmdet_models_import_after_vitdense_even_when_they_have_failed_before():
    pytest.importorskip('mmdet')
    code = """
import sys  # as in a Python whose start found nothing of ours
sys.meta_path[:] = [finder for finder in sys.meta_path if getattr(finder, '__name__', '') != 'StartOfVitdense']
try:
    import mmdet.models
except ModuleNotFoundError as error:
    assert error.name == 'mmcv._ext'
else:
    raise AssertionError('mmcv has compiled operators here')
import vitdense, sys
import mmdet.models
print(mmdet.models.RetinaNet.__name__, sys.modules['mmcv']._ext.__spec__.name)
"""
    assert output_of(code).splitlines()[-1] == 'RetinaNet mmcv._ext'


def started(code: str, tmp_path: Path) -> str:
    """Output of ``code`` in a Python that has read our ``.pth`` file, as that of an installation."""
    shutil.copy(ROOT / 'vitdense_startup.pth', tmp_path)
    return output_of(f'import site; site.addsitedir({str(tmp_path)!r})\n{code}').splitlines()[-1]


@pytest.mark.slow
def test_the_start_of_python_lets_mmdet_be_imported_without_vitdense(tmp_path):
    pytest.importorskip('mmdet')
    code = """
import sys
import mmdet.models
from mmcv.ops import multi_scale_deform_attn as mmcv
from vitdense.compat.mmcv_ext import is_stand_in
from vitdense.compat.mmcv_ext.ms_deform_attn import multi_scale_deformable_attn as ours
print(is_stand_in(), mmcv.multi_scale_deformable_attn_pytorch is ours)
"""
    assert started(code, tmp_path) == 'True True'


def test_the_start_of_python_imports_nothing(tmp_path):
    code = """
import sys
heavy = ('vitdense', 'vitdense_startup', 'mmcv', 'mmengine', 'torch', 'numpy')
added = [name for name in sys.modules if name.partition('.')[0] in heavy]
print(added, sum(getattr(finder, '__name__', '') == 'StartOfVitdense' for finder in sys.meta_path))
"""
    assert started(code, tmp_path) == '[] 1'


@pytest.mark.slow
def test_the_start_of_python_lets_configs_name_mmseg(tmp_path):
    pytest.importorskip('mmseg')
    code = """
import sys
from mmengine.hub import get_config
cfg = get_config('mmseg::sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py')
print(cfg.model.decode_head.type, 'vitdense' in sys.modules)
"""
    assert started(code, tmp_path) == 'FPNHead False'


@pytest.mark.slow
def test_the_start_of_python_leaves_a_compiled_extension_alone(tmp_path):
    (tmp_path / '_ext.py').write_text('def nms(*args, **kwargs):\n    return "compiled"\n')
    code = f"""
import sys, mmcv
mmcv.__path__.append({str(tmp_path)!r})
import mmcv._ext
print(mmcv._ext.nms(), 'vitdense' in sys.modules)
"""
    assert started(code, tmp_path) == 'compiled False'


@pytest.mark.slow
def test_a_compiled_extension_is_never_replaced(tmp_path):
    (tmp_path / '_ext.py').write_text('def nms(*args, **kwargs):\n    return "compiled"\n')
    code = f"""
import vitdense, mmcv
mmcv.__path__.append({str(tmp_path)!r})
import mmcv._ext
vitdense.compat.install()
import mmcv._ext as again
print(again.nms(), hasattr(again, 'softnms'))
"""
    assert output_of(code) == 'compiled False'


def test_install_twice_adds_one_finder():
    before = list(sys.meta_path)
    install()
    assert sys.meta_path == before
    importlib.invalidate_caches()  # asks every finder


def test_an_operator_that_is_not_there_says_how_to_get_it():
    import mmcv._ext as ext

    with pytest.raises(OpNotAvailableError) as error:
        ops.PSAMask('collect', (3, 3))(torch.zeros(1, 9, 4, 4))
    text = str(error.value)
    assert 'psamask_forward' in text
    assert re.search(r'MMCV_WITH_OPS=1 pip install .*mmcv==\d+\.\d+\.\d+; see https://', text)
    assert isinstance(error.value, NotImplementedError)
    with pytest.raises(AttributeError, match='__file__'):
        ext.__file__  # noqa: B018
    assert 'torchvision' in ops.get_compiler_version()
    assert isinstance(ops.get_compiling_cuda_version(), str)


@pytest.mark.slow
def test_dynamo_traces_code_that_calls_the_operators():
    def detect(x, boxes, scores):
        kept = ops.nms(boxes * 1.0, scores, 0.5)[1]
        rois = torch.cat([boxes.new_zeros(len(kept), 1), boxes[kept]], dim=1)
        return ops.roi_align(x.sin(), rois, 2).cos()

    x = torch.rand(1, 2, 8, 8, requires_grad=True)
    boxes, scores = torch.tensor([[0, 0, 4, 4], [0, 0, 4, 5], [3, 3, 7, 7.0]]), torch.tensor([0.3, 0.9, 0.5])
    expected = detect(x, boxes, scores)
    compiled = torch.compile(detect, fullgraph=False, backend='eager')(x, boxes, scores)
    torch.testing.assert_close(compiled, expected)
    expected_grad, grad = (torch.autograd.grad(out.sum(), x)[0] for out in (expected, compiled))
    torch.testing.assert_close(grad, expected_grad)


@pytest.mark.slow
@pytest.mark.parametrize('dtype', [None, torch.bfloat16])
def test_mask_rcnn_with_deformable_convolutions_trains_and_predicts(dtype):
    pytest.importorskip('mmdet')
    from mmdet.registry import MODELS
    from mmdet.testing import demo_mm_inputs
    from mmdet.utils import register_all_modules

    register_all_modules()
    torch.manual_seed(0)
    cfg = hub.get_config('mmdet::dcnv2/mask-rcnn_r50-mdconv-c3-c5_fpn_1x_coco.py').model
    cfg.backbone.update(base_channels=4, init_cfg=None)
    cfg.neck.update(in_channels=[16, 32, 64, 128], out_channels=8)
    cfg.rpn_head.update(in_channels=8, feat_channels=8)
    for part in (cfg.roi_head.bbox_roi_extractor, cfg.roi_head.mask_roi_extractor):
        part.out_channels = 8
    cfg.roi_head.bbox_head.update(in_channels=8, fc_out_channels=16, num_classes=3)
    cfg.roi_head.mask_head.update(in_channels=8, conv_out_channels=8, num_classes=3)
    cfg.test_cfg.rcnn.update(score_thr=0.0, max_per_img=5, nms=dict(type='soft_nms', iou_threshold=0.5))
    model = MODELS.build(cfg)
    data = demo_mm_inputs(2, [[3, 64, 96], [3, 80, 64]], num_items=[2, 0], num_classes=3, with_mask=True)
    with torch.autocast('cpu', dtype=dtype, enabled=dtype is not None):
        losses = model(**model.data_preprocessor(data, True), mode='loss')
        model.eval()
        predictions = model(**model.data_preprocessor(data, False), mode='predict')
    loss, _ = model.parse_losses(losses)
    loss.backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.isfinite().all()}
    assert moved == {name for name, p in model.named_parameters() if p.requires_grad}
    assert model.backbone.layer4[0].conv2.weight.grad.any()
    for image, sample in zip(data['inputs'], predictions, strict=True):
        found = sample.pred_instances
        assert found.masks.shape == (5, *image.shape[1:])
        assert (found.scores[:-1] >= found.scores[1:]).all()


# --- when ---


@pytest.mark.slow
def test_the_import_is_light_and_repairs_what_is_imported_later():
    code = """
import sys, vitdense
print(sorted({name.partition('.')[0] for name in sys.modules} & {'torch', 'mmengine', 'mmcv', 'mmdet', 'mmseg'}))
import torch
print('mmengine.logging.history_buffer.HistoryBuffer' in str(torch.serialization.get_safe_globals()))
"""
    assert output_of(code).splitlines() == ['[]', 'True']


def test_a_module_is_repaired_once_it_is_whole(tmp_path, monkeypatch):
    (tmp_path / 'spoilt.py').write_text('import json\nwhole = True\n')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(after_import, 'REPAIRS', {})
    found = []
    after_import.after_import('spoilt', lambda module: found.append(module.whole))
    assert found == []
    import spoilt

    assert found == [True]
    assert spoilt.__spec__.origin == str(tmp_path / 'spoilt.py')
    repair = found.append
    after_import.after_import('spoilt', repair)
    assert found == [True, spoilt]
    after_import.after_import('spoilt', after_import.REPAIRS['spoilt'][1])
    assert found == [True, spoilt], 'the same repair twice is one'
    del sys.modules['spoilt']


@pytest.mark.slow
def test_vitdense_first_or_torch_first_is_the_same(tmp_path):
    torch.save({'history': HistoryBuffer([0.5], [1])}, tmp_path / 'a.pth')
    load = f'print(torch.load({str(tmp_path / "a.pth")!r})["history"].data[0])'
    for order in ('vitdense, torch', 'torch, vitdense'):
        assert output_of(f'import {order}; {load}') == '[0.5]'


# --- what is said when a package is missing ---


def test_without_the_stack_exported_models_can_be_used_and_the_rest_says_what_to_install():
    assert python('import vitdense; print(vitdense.load)', '-S').stdout.startswith('<function load')
    assert message_of('import vitdense.registry', '-S') == (
        'ImportError: vitdense needs the OpenMMLab stack, and mmengine and mmcv cannot be found. '
        'Install it with: pip install "vitdense[openmmlab]"'
    )


@pytest.mark.parametrize(
    ('module', 'remedy'),
    [
        ('mmcv', 'mmcv cannot be found. Install it with: pip install "vitdense[openmmlab]"'),
        ('torchvision', 'pip install torchvision'),
        ('cv2', 'pip install opencv-python-headless'),
    ],
)
def test_one_missing_package_is_named(module, remedy):
    message = message_of(f'import sys; sys.modules[{module!r}] = None; import vitdense')
    assert message.startswith('ImportError: ')
    assert module in message
    assert message.endswith(remedy)


def test_only_one_of_mmdet_and_mmseg_is_enough():
    assert output_of('import sys; sys.modules.update(mmdet=None, mmseg=None); import vitdense; print(1)') == '1'


def test_opencv_without_its_system_libraries(tmp_path):
    (tmp_path / 'cv2.py').write_text('raise ImportError("libGL.so.1: cannot open shared object file")\n')
    message = message_of('import vitdense', path=tmp_path)
    assert 'system library libGL.so.1 is missing' in message
    assert 'pip install --force-reinstall opencv-python-headless' in message
    (tmp_path / 'cv2.py').write_text('raise ImportError("numpy is too old")\n')
    assert message_of('import vitdense', path=tmp_path) == 'ImportError: numpy is too old'


def test_upstreams_mmengine_without_pkg_resources(monkeypatch):
    monkeypatch.setattr(requirements.metadata, 'version', lambda name: '0.10.7')
    monkeypatch.setattr(requirements, '_installed', lambda name: name != 'pkg_resources')
    with pytest.raises(ImportError, match=r"mmengine 0\.10\.7 needs pkg_resources.*'setuptools<81'"):
        requirements.check()


# --- repairs ---


def test_mmcv_finds_its_operators_without_find_loader(monkeypatch):
    from mmcv.utils.ext_loader import check_ops_exist

    monkeypatch.delattr(pkgutil, 'find_loader', raising=False)
    patches.restore_find_loader()
    assert check_ops_exist() is True
    assert pkgutil.find_loader('mmcv.no_such_module') is None


def test_a_config_of_mmseg_is_found_without_pip(monkeypatch):
    pytest.importorskip('mmseg')
    monkeypatch.setattr(package_utils, 'call_command', lambda cmd: pytest.fail(f'mmengine ran {cmd}'))
    assert hub.get_config('mmseg::sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py').model.decode_head.type == 'FPNHead'


class Line(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, mode):
        return {'loss': (self.weight - x.mean()).square().sum()}


def train(folder: Path, iterations: int, resume: bool) -> Runner:
    runner = Runner(
        model=Line(),
        work_dir=str(folder),
        train_dataloader=dict(
            dataset=[torch.ones(1)] * 4,
            batch_size=1,
            sampler=dict(type='InfiniteSampler', shuffle=False),
            collate_fn=lambda batch: dict(x=torch.stack(batch)),
        ),
        train_cfg=dict(by_epoch=False, max_iters=iterations),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
        param_scheduler=dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=8),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2),
            logger=dict(type='LoggerHook', interval=1),
        ),
        experiment_name=f'{folder.name}-{iterations}-{resume}',
        resume=resume,
        log_level='ERROR',
    )
    runner.train()
    return runner


def test_training_resumes_where_it_stopped_without_trusting_the_file(tmp_path, monkeypatch):
    load, trusting = torch.load, []

    def spy(*args, weights_only=True, **kwargs):
        trusting.append(not weights_only)
        return load(*args, weights_only=weights_only, **kwargs)

    train(tmp_path / 'halves', 2, resume=False)
    monkeypatch.setattr(torch, 'load', spy)
    second = train(tmp_path / 'halves', 4, resume=True)
    assert trusting == [False]
    whole = train(tmp_path / 'whole', 4, resume=False)
    assert second.iter == 4
    assert torch.equal(second.model.weight, whole.model.weight)
    histories = [runner.message_hub.get_scalar('train/loss').data for runner in (second, whole)]
    np.testing.assert_array_equal(*histories)


@pytest.mark.parametrize('numpy_core', [b'numpy.core', b'numpy._core'])
def test_a_log_history_of_either_numpy_loads_with_weights_only(tmp_path, numpy_core):
    history = HistoryBuffer([0.5, np.float32(0.25)], [1, 2])
    saved, rewritten = tmp_path / 'saved.pth', tmp_path / 'rewritten.pth'
    torch.save({'history': history, 'scalar': np.int64(3)}, saved)
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(rewritten, 'w') as target:
        for name in source.namelist():
            target.writestr(name, re.sub(rb'numpy\._?core', numpy_core, source.read(name)))
    loaded = torch.load(rewritten, weights_only=True)
    np.testing.assert_array_equal(loaded['history'].data, history.data)
    assert loaded['scalar'] == 3


class Attack:
    def __init__(self, owner, name):
        self.attribute = owner, name

    def __reduce__(self):
        return getattr, self.attribute


@pytest.mark.parametrize('attribute', [(np.ndarray, 'tofile'), (HistoryBuffer, '__init__')])
def test_a_checkpoint_reaches_nothing_but_the_history(tmp_path, attribute):
    torch.save(Attack(*attribute), tmp_path / 'bad.pth')
    with pytest.raises(Exception, match='may only refer to methods of HistoryBuffer'):
        torch.load(tmp_path / 'bad.pth', weights_only=True)
