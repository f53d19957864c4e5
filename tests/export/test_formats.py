"""Programs of torch.export and weights with a description: what they find, what is in them, and what is refused."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from safetensors.torch import load_file, save_file
from support import ROOT
from support.bounded import refusal
from support.trained import work_dir
from torch import nn
from torch.nn import functional as F

import vitdense
from vitdense.commands import parser_of
from vitdense.commands.export import target_of
from vitdense.export.archive import check
from vitdense.export.exported import ExportedModel
from vitdense.export.half import ATEN, PRODUCTS, in_half
from vitdense.export.program import to_program
from vitdense.export.proof import compare
from vitdense.export.weights import facts_in, to_weights
from vitdense.predict.sources import Frame

SIZES = [(60, 80), (61, 83), (80, 60)]


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    return work_dir('instances', tmp_path_factory.mktemp('trained'))


@pytest.fixture(scope='module')
def model(folder):
    return vitdense.load(folder, device='cpu')


@pytest.fixture(scope='module')
def program(model, folder) -> Path:
    to_program(model, folder / 'model.pt2')
    return folder / 'model.pt2'


@pytest.fixture(scope='module')
def weights(model, folder) -> Path:
    to_weights(model, folder / 'model.safetensors')
    return folder / 'model.safetensors'


def pictures() -> list[Frame]:
    rng = np.random.default_rng(0)
    return [
        Frame(cv2.resize(rng.integers(0, 255, (6, 8, 3), np.uint8), hw[::-1]), f'{i}') for i, hw in enumerate(SIZES)
    ]


@pytest.mark.slow
@pytest.mark.parametrize('form', ['program', 'weights'])
def test_equals_the_model(form, model, request):
    exported = vitdense.load(request.getfixturevalue(form), device='cpu')
    assert (exported.names, exported.palette, exported.task) == (model.names, model.palette, model.task)
    differences = compare(model, exported, pictures())
    assert differences.is_small, str(differences)
    assert differences.detections > 0
    if form == 'weights':
        assert (differences.boxes, differences.scores, differences.pixels, differences.other) == (0, 0, 0, 0)
    [alone], [_, batched, _] = (exported.infer_frames(pictures()[:1] * n, 0.0) for n in (1, 3))
    np.testing.assert_allclose(batched.boxes, alone.boxes, atol=1e-3)


@pytest.mark.slow
def test_a_program_runs_without_openmmlab_and_names_no_files(program, tmp_path):
    cv2.imwrite(str(tmp_path / 'photo.png'), pictures()[0].image)
    script = f"""
import sys
for name in ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'cv2', 'timm', 'rich', 'onnxruntime'):
    sys.modules[name] = None
import vitdense
print(repr(vitdense.load({str(program)!r}, device='cpu').predict({str(tmp_path / 'photo.png')!r}, threshold=0.0)[0]))
"""
    env = {'PYTHONPATH': str(ROOT)}
    found = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, env=env)
    assert found.returncode == 0, found.stderr[-2000:]
    assert re.search(r'photo.png, 80 x 60: \d+ slab', found.stdout)
    with zipfile.ZipFile(program) as archive:
        assert not any(str(ROOT).encode() in archive.read(name) for name in archive.namelist())


def rewritten(source: Path, target: Path, change, extra: dict[str, bytes] | None = None) -> Path:
    """A program whose JSON files went through ``change``, and that has more files."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, 'w') as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, json.dumps(change(json.loads(content))) if name.endswith('.json') else content)
        for name, content in (extra or {}).items():
            new.writestr(f'{source.stem}/{name}', content)
    return target


def replaced(key: str, value):
    def change(node):
        if isinstance(node, dict):
            return {name: value if name == key else change(child) for name, child in node.items()}
        return [change(child) for child in node] if isinstance(node, list) else node

    return change


HOSTILE = {
    'the operator': (replaced('target', 'torch.hub.load'), {}),
    'the operator ': (replaced('target', '_operator.methodcaller'), {}),
    'the operator  ': (replaced('target', 'torch.ops.aten.from_file.default'), {}),
    'the formula': (replaced('expr_str', "__import__('os').system('touch hacked')"), {}),
    'the formula ': (replaced('expr_str', "Symbol('a').__class__"), {}),
    'the formula  ': (replaced('expr_str', 'lambdify(Integer(1), Integer(2))'), {}),
    'a pickle': (replaced('use_pickle', True), {}),
    'custom_obj_0': (lambda node: node, {'data/constants/custom_obj_0': b'x'}),
    'data/aotinductor/model/x.so': (lambda node: node, {'data/aotinductor/model/x.so': b'x'}),
    'data/sample_inputs/other.pt': (lambda node: node, {'data/sample_inputs/other.pt': b'x'}),
}


@pytest.mark.slow
@pytest.mark.parametrize('what', HOSTILE)
def test_a_program_with_more_than_a_program_is_refused(what, program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check(program)
    change, extra = HOSTILE[what]
    path = rewritten(program, tmp_path / 'model.pt2', change, extra)
    with pytest.raises(ValueError, match=rf'model.pt2 is refused: it has .*{what.strip()}') as error:
        vitdense.load(path)
    assert len(str(error.value)) < 400
    assert sorted(os.listdir()) == ['model.pt2']


@pytest.mark.slow
def test_a_program_with_damaged_weights(program, tmp_path):
    with zipfile.ZipFile(program) as archive:
        weights = max(archive.infolist(), key=lambda entry: entry.file_size)
    content = bytearray(program.read_bytes())
    content[weights.header_offset + weights.file_size // 2] ^= 1
    (tmp_path / 'm.pt2').write_bytes(content)
    with pytest.raises(ValueError, match=r'm\.pt2 is damaged: .*weight_\d+ in it has another checksum'):
        vitdense.load(tmp_path / 'm.pt2', device='cpu')


@pytest.mark.parametrize('suffix', ['.pt2', '.safetensors'])
def test_what_is_no_file_of_the_kind(suffix, tmp_path):
    (tmp_path / f'm{suffix}').write_text('text')
    with pytest.raises(ValueError, match=rf'm{suffix} is no (program of torch.export|file of safetensors)'):
        vitdense.load(tmp_path / f'm{suffix}')
    with pytest.raises(FileNotFoundError, match='there is no exported file'):
        vitdense.load(tmp_path / f'other{suffix}')


def test_programs_and_weights_of_others_are_told_apart(tmp_path):
    torch.export.save(torch.export.export(nn.ReLU(), (torch.zeros(2),)), tmp_path / 'm.pt2')
    with pytest.raises(
        ValueError, match=r'm.pt2 is (refused|a program of torch.export, but none of `vitdense export`)'
    ):
        vitdense.load(tmp_path / 'm.pt2')
    save_file(dict(weight=torch.zeros(2)), tmp_path / 'm.safetensors')
    with pytest.raises(ValueError, match=r'm.safetensors. is a checkpoint: name its work dir or its config'):
        vitdense.load(tmp_path / 'm.safetensors')


def test_programs_that_unpack_to_too_much(tmp_path):
    path = tmp_path / 'm.pt2'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr('m/models/model.json', bytes(2**28 + 1))
    assert 'unpacks to' in refusal(lambda: check(path), megabytes=200)
    for content in ('[' * 200_000, '{"target": 3}', '{"target": "' + '(' * 200_000 + '"}'):
        with zipfile.ZipFile(path, 'w') as archive:
            archive.writestr('m/models/model.json', content)
        assert 'm.pt2 is ' in refusal(lambda: check(path))


def test_descriptions_that_describe_nothing(tmp_path):
    class Nothing(ExportedModel):
        path, device, engine = '', 'cpu', ''

        def run(self, image, size):
            return []

    known = dict(names=['a'], task='detection', iou_threshold=0.5, palette=[[1, 2, 3]], mask_threshold=0.5)
    for facts in ('', '[]', '{}', '[' * 200_000, json.dumps(dict(known, preprocess={'size': 3, 'x': 1}))):
        with pytest.raises(ValueError, match=r'm\.onnx does not say what it is'):
            Nothing(facts, 'm.onnx')
    picture = np.zeros((60, 80, 3), np.uint8)
    for change in (dict(rule='stretch', size=[10**6, 10**6]), dict(multiple=10**6), dict(pad=[10**6, 10**6])):
        model = Nothing(json.dumps(dict(known, preprocess=change)), 'm.onnx')
        assert '1000000 x 1000000 pixels, expected at most' in refusal(lambda model=model: model.preprocess(picture))


@pytest.mark.slow
def test_weights_that_are_damaged(weights, tmp_path):
    content = bytearray(weights.read_bytes())
    content[-1000] ^= 1
    (tmp_path / 'm.safetensors').write_bytes(content)
    with pytest.raises(ValueError, match=r'm\.safetensors is damaged: its content is not that of its check sum'):
        vitdense.load(tmp_path / 'm.safetensors', device='cpu')


def test_weights_say_what_they_are(weights, model, tmp_path):
    facts = facts_in(weights)
    assert facts['names'] == list(model.names)
    assert facts['config']['model']['backbone']['type'] == 'vitdense.PVTv2'
    assert facts['config']['test_dataloader']['dataset']['pipeline'][-1]['type'] == 'PackDetInputs'
    state = load_file(weights)
    assert state.keys() == model.network.state_dict().keys()
    to_weights(model, tmp_path / 'half.safetensors', half=True)
    half = load_file(tmp_path / 'half.safetensors')
    assert {value.dtype for name, value in half.items() if '.norm' in name} == {torch.float32}
    assert half['roi_head.bbox_head.fc_cls.weight'].dtype == torch.float16
    for name, value in half.items():
        torch.testing.assert_close(value.float(), state[name].float(), rtol=2**-11, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('place', 'node'),
    [
        ('model', dict(type='os.system', command='touch hacked')),
        ('model.backbone', dict(type='subprocess.Popen', args=['touch', 'hacked'])),
        ('model.backbone', dict(type='vitdense.PVTv2', _scope_='antigravity')),
        ('model.neck', dict(type='mmdet.models.necks.FPN')),
        ('test_dataloader.dataset.pipeline', [dict(type='builtins.exec')]),
    ],
)
def test_weights_name_registered_classes_alone(place, node, weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    facts = facts_in(weights)
    cfg = Config(facts['config'])
    cfg.merge_from_dict({place: node})
    facts['config'] = cfg.to_dict()
    save_file(load_file(weights), tmp_path / 'm.safetensors', dict(vitdense=json.dumps(facts)))
    with pytest.raises(ValueError, match=r'm.safetensors describes a model with (type|_scope_)=.* not registered here'):
        vitdense.load(tmp_path / 'm.safetensors')
    assert os.listdir() == ['m.safetensors']


@pytest.mark.slow
def test_weights_of_another_model_and_what_no_text_describes(weights, model, tmp_path, monkeypatch):
    facts = facts_in(weights)
    state = load_file(weights)
    state.pop('backbone.norm1.weight')
    save_file(state, tmp_path / 'm.safetensors', dict(vitdense=json.dumps(facts)))
    with pytest.raises(ValueError, match='holds other weights than it describes'):
        vitdense.load(tmp_path / 'm.safetensors')
    changed = Config(model.cfg.to_dict())
    changed.model.backbone.frozen_stages = len
    monkeypatch.setattr(model, 'cfg', changed)
    with pytest.raises(ValueError, match=r'model.backbone.frozen_stages is <built-in function len>'):
        to_weights(model, tmp_path / 'n.safetensors')


class Block(nn.Module):
    """A convolution, attention, and a last product."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 2, 2)
        self.qkv = nn.Linear(8, 24)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.stem(image).flatten(2).mT
        q, k, v = self.qkv(x).unflatten(2, (2, 12)).transpose(1, 2).chunk(3, -1)
        x = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head(self.norm(x)).sigmoid()


def test_half_precision_is_that_of_products_alone():
    torch.manual_seed(0)
    block = Block().eval()
    image = torch.randn(2, 3, 8, 12)
    free = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    with torch.fx.experimental._config.patch(backed_size_oblivious=True):
        program = in_half(torch.export.export(block, (image,), dynamic_shapes=(free,)))
    single, half = torch.float32, torch.float16
    kinds = {
        str(node.target): (node.all_input_nodes[0].meta['val'].dtype, node.meta['val'].dtype)
        for node in program.graph.nodes
        if node.op == 'call_function'
        and node.target in (*PRODUCTS, ATEN.softmax.int, ATEN.layer_norm.default, ATEN.sigmoid.default)
    }
    assert kinds['aten.conv2d.default'] == kinds['aten.matmul.default'] == (half, half)
    for name in ('aten.softmax.int', 'aten.layer_norm.default', 'aten.sigmoid.default'):
        assert kinds[name] == (single, single), name
    types = {name: value.dtype for name, value in program.state_dict.items()}
    assert types['qkv.weight'] == types['qkv.bias'] == types['stem.weight'] == half
    assert types['head.weight'] == types['norm.weight'] == single
    module = program.module(check_guards=False)
    for size in ((2, 8, 12), (3, 10, 6)):
        image = torch.randn(size[0], 3, *size[1:])
        found, expected = module(image), block(image)
        torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)
        assert not torch.equal(found, expected)


@pytest.mark.parametrize(
    ('options', 'form', 'name'),
    [
        ([], 'onnx', 'model.onnx'),
        (['--to', 'torch'], 'torch', 'model.pt2'),
        (['--out', 'x.safetensors'], 'safetensors', 'x.safetensors'),
        (['--to', 'torch', '--out', 'x.pt2'], 'torch', 'x.pt2'),
    ],
)
def test_what_is_written_where(options, form, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, path = target_of(parser_of('export').parse_args([str(tmp_path), *options]))
    assert (found, path.name) == (form, name)


def test_another_suffix_than_the_format(tmp_path):
    args = parser_of('export').parse_args([str(tmp_path), '--to', 'torch', '--out', str(tmp_path / 'm.onnx')])
    with pytest.raises(ValueError, match=r'expected the path of a file that ends in .pt2'):
        target_of(args)
