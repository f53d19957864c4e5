"""Checkpoint files, rewritten in another layout and back."""

import re
import runpy
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import pytest
import timm
import torch
import transformers
from mmengine.logging import HistoryBuffer
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS
from mmengine.runner import load_checkpoint
from safetensors import safe_open
from safetensors.torch import save_file
from support import ROOT
from support.backbones import layout_of, randomize_
from support.layouts import DETR_PVT, MAPS, ONE_LAYER, SAMPLES, WINDOWS, few, model_of, sample
from torch import nn

from vitdense.checkpoint.check import check_fit
from vitdense.checkpoint.into_model import adapt
from vitdense.checkpoint.layouts import FAMILIES
from vitdense.checkpoint.layouts.family import State
from vitdense.checkpoint.pretrained import Pretrained
from vitdense.checkpoint.read import read
from vitdense.checkpoint.translate import recognise, unwrap
from vitdense.checkpoint.write import rewrite, weights_of, written
from vitdense.models.backbones import Swin

TOOL = ROOT / 'tools/convert_checkpoint.py'


def weights_in(path: Path) -> State:
    """The tensors of a file, but for the counters of batch norms, which some layouts have and some not."""
    return {key: value for key, value in unwrap(read(path)).items() if not key.endswith('num_batches_tracked')}


def same(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize('name', SAMPLES)
def test_from_each_layout_to_each_other(name, tmp_path):
    """What is written is the same whichever layout the source has, so that it is the same there and back."""
    kind, _, targets = SAMPLES[name]
    ours = saved(tmp_path / 'ours.pth', dict(state_dict=sample(name)))
    files = {'vitdense': ours}
    for target in targets.split():
        files[target] = tmp_path / f'{target}.safetensors'
        rewrite(ours, files[target], target)
    new = tmp_path / 'new.safetensors'
    for source, target in permutations(files, 2):
        told = rewrite(files[source], new, target, overwrite=True)
        assert same(weights_in(new), weights_in(files[target]))
        assert re.match(rf'{files[source]}: recognised as {kind} \(.+\)$', told[0])
    assert same(weights_in(ours), {key: sample(name)[key] for key in weights_in(ours)})
    assert not list(tmp_path.glob('.*'))


@pytest.mark.slow
def test_every_layout_that_can_be_written_is_recognised():
    states = (written(weights_of(sample(name)), to)[0] for name in SAMPLES for to in SAMPLES[name][2].split())
    found = {(family, layout.name) for family, layout in filter(None, map(recognise, states))}
    assert found == {(name, layout.name) for name, x in FAMILIES.items() for layout in x.layouts if layout.targets}


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_timm_loads_what_is_written(suffix, tmp_path):
    ours = saved(tmp_path / 'ours.pth', dict(state_dict=sample('PVTv2')))
    rewrite(ours, tmp_path / f'timm{suffix}', 'timm')
    peer = timm.create_model('pvt_v2_b0', num_classes=0, **MAPS)
    timm.models.load_checkpoint(peer, str(tmp_path / f'timm{suffix}'), strict=True)
    assert same(peer.state_dict(), weights_in(tmp_path / f'timm{suffix}'))


def test_transformers_loads_what_is_written(tmp_path):
    """As a file of a folder with its config."""
    stages = dict(out_features=['stage1', 'stage2', 'stage3', 'stage4'])
    config = transformers.PvtV2Config(depths=MAPS['depths'], hidden_sizes=MAPS['embed_dims'], **stages)
    config.save_pretrained(tmp_path)
    ours = saved(tmp_path / 'ours.pth', dict(state_dict=sample('PVTv2')))
    rewrite(ours, tmp_path / 'model.safetensors', 'transformers')
    peer, told = transformers.PvtV2Backbone.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(told.values())
    state = {f'pvt_v2.{key}': value for key, value in peer.state_dict().items()}
    assert same(state, weights_in(tmp_path / 'model.safetensors'))
    with safe_open(tmp_path / 'model.safetensors', 'pt') as file:
        assert file.metadata() == {'format': 'pt'}


def mmdet_detr() -> nn.Module:
    model = model_of('mmdet::detr/detr_r50_8xb2-150e_coco.py')
    layers = dict(embed_dims=8, num_layers=MAPS['depths'], out_indices=(3,))
    model.backbone = dict(type='PyramidVisionTransformer', **layers)
    model.neck.in_channels = [64]
    model.encoder.num_layers = model.decoder.num_layers = 1
    return MODELS.build(model)


@pytest.mark.slow
def test_a_detr_of_mmdet_around_a_backbone_of_ours(tmp_path):
    """Our detector loads what its zoo has with its own PVT, and mmdet loads it again."""
    content = dict(meta=dict(epoch=3), state_dict=randomize_(mmdet_detr()).state_dict())
    theirs = saved(tmp_path / 'theirs.pth', content)
    told = rewrite(theirs, tmp_path / 'ours.pth')
    assert told[0].endswith('recognised as detr with pvt (mmdet)')
    config = model_of(DETR_PVT)
    config.backbone.update(MAPS)
    config.bbox_head.update(ONE_LAYER, in_channels=64)
    MODELS.build(config).load_state_dict(unwrap(read(tmp_path / 'ours.pth')))
    rewrite(tmp_path / 'ours.pth', tmp_path / 'back.pth', 'mmdet')
    back = load_checkpoint(mmdet_detr(), str(tmp_path / 'back.pth'), strict=True)
    assert same(back['state_dict'], content['state_dict'])
    assert back['meta'] == dict(epoch=3)


def test_a_mask_rcnn_of_mmdet_around_a_swin(tmp_path):
    """But for the indices of windows, which mmdet computes anew; its backbone goes to others alone."""
    model = model_of('mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py')
    model.backbone.update(depths=(1, 1, 1, 1))
    state = {key: few(value) for key, value in MODELS.build(model).state_dict().items()}
    theirs = saved(tmp_path / 'theirs.pth', dict(state_dict=state))
    rewrite(theirs, tmp_path / 'ours.pth')
    told = rewrite(tmp_path / 'ours.pth', tmp_path / 'back.pth', 'mmdet')
    assert told[0].endswith('recognised as a model with swin (vitdense)')
    indices = [key for key in state if key.endswith('relative_position_index')]
    assert same(weights_in(tmp_path / 'back.pth') | {key: state[key] for key in indices}, state)
    told = rewrite(theirs, tmp_path / 'alone.safetensors', 'transformers')
    assert told[0].endswith('recognised as a model with swin (mmdet)')
    assert re.fullmatch(
        r'left out: \d+ \(backbone\.\*\.relative_position_index, neck\.\*, rpn_head\.\*, roi_head\.\*\)', told[1]
    )
    alone = weights_of(read(tmp_path / 'alone.safetensors')).state
    ours = unwrap(read(tmp_path / 'ours.pth'))
    part = {key: value for key, value in ours.items() if key.startswith('backbone.')}
    assert same({f'backbone.{key}': value for key, value in alone.items()}, part)


def mmseg_setr() -> nn.Module:
    model = model_of('mmseg::setr/setr_vit-l_naive_8xb2-160k_ade20k-512x512.py')
    model.backbone.update(num_layers=2, embed_dims=48, num_heads=3, out_indices=(0, 0, 0, 1), img_size=(64, 64))
    for head in (model.decode_head, *model.auxiliary_head):
        head.update(in_channels=48, channels=8)
    return revert_sync_batchnorm(MODELS.build(model))


def test_a_setr_of_mmseg(tmp_path):
    state = randomize_(mmseg_setr()).state_dict()
    theirs = saved(tmp_path / 'theirs.pth', dict(state_dict=state))
    told = rewrite(theirs, tmp_path / 'ours.pth')
    assert told[0].endswith('recognised as setr with vit (mmseg, naive)')
    assert told[1].startswith('mmseg, naive: its outputs are those of model.decode_head.up_scale=4')
    rewrite(tmp_path / 'ours.pth', tmp_path / 'back.pth', 'mmseg')
    back = load_checkpoint(mmseg_setr(), str(tmp_path / 'back.pth'), strict=True)
    assert same(back['state_dict'], state)


def test_a_trained_yolos_goes_to_its_release_and_is_loaded_from_it(tmp_path):
    """With what its training said of the data, and without the state of the optimizer."""
    model = model_of('yolos/yolos-ti_8xb2-300e_coco.py')
    model.backbone.update(embed_dims=48, num_heads=3, depth=3, img_size=(32, 48), det_tokens=5)
    model.bbox_head.update(num_classes=2, in_channels=48)
    model = randomize_(MODELS.build(model))
    meta = dict(epoch=2, dataset_meta=dict(classes=('cat', 'dog'), palette=[(220, 20, 60), (119, 11, 32)]))
    trained = dict(meta=meta, state_dict=model.state_dict(), optimizer=dict(state={0: dict(step=torch.tensor(4.0))}))
    trained = saved(
        tmp_path / 'last.pth', trained | dict(message_hub=dict(log_scalars={'loss': HistoryBuffer([0.5], [1])}))
    )
    told = rewrite(trained, tmp_path / 'release.pth', 'official')
    assert told == [
        f'{trained}: recognised as yolos_detector with yolos (vitdense)',
        'left out: 2 (optimizer, message_hub)',
        f"{tmp_path}/release.pth: written {len(model.state_dict())} tensors in the layout 'official', read back and "
        'found equal',
    ]
    release = read(tmp_path / 'release.pth')
    assert release.keys() == {'meta', 'model'}
    assert release['meta'] == meta
    checkpoint, changes = adapt(release, model)
    assert check_fit(model, checkpoint, 'a.pth', purpose='checkpoint', changes=changes).startswith(
        'loaded 100 % of parameters from a.pth (YOLOS release)'
    )
    rewrite(tmp_path / 'release.pth', tmp_path / 'back.pth')
    assert read(tmp_path / 'back.pth')['meta'] == meta
    assert same(weights_in(tmp_path / 'back.pth'), model.state_dict())
    told = rewrite(trained, tmp_path / 'release.safetensors', 'official')
    assert told[1] == 'left out: 3 (meta, optimizer, message_hub)'


def test_a_backbone_out_of_a_detector_is_a_start_for_another(tmp_path):
    state = {f'backbone.{key}': value for key, value in sample('Swin').items()} | {'neck.weight': torch.ones(1)}
    rewrite(saved(tmp_path / 'ours.pth', dict(state_dict=state)), tmp_path / 'alone.safetensors', 'transformers')
    other = Swin('tiny', **WINDOWS)
    Pretrained(str(tmp_path / 'alone.safetensors'))(other)
    assert same(other.state_dict(), sample('Swin'))


@pytest.mark.parametrize(
    ('name', 'target', 'keys'),
    [
        ('PVT', 'vitdense', {'meta', 'state_dict'}),
        ('Swin', 'official', {'meta', 'model'}),
        ('Mask R-CNN + Swin', 'official', {'meta', 'state_dict'}),
        ('Swin', 'mmdet', {'meta', 'state_dict'}),
        ('DETR', 'official', {'meta', 'model'}),
    ],
)
def test_weights_are_under_the_key_of_the_release(name, target, keys, tmp_path):
    rewrite(saved(tmp_path / 'ours.pth', sample(name)), tmp_path / 'theirs.pth', target)
    assert read(tmp_path / 'theirs.pth').keys() == keys


def test_a_release_without_such_a_key_has_only_weights(tmp_path):
    rewrite(saved(tmp_path / 'ours.pth', dict(state_dict=sample('PVT'), meta={})), tmp_path / 'theirs.pth', 'official')
    assert read(tmp_path / 'theirs.pth').keys() == sample('PVT').keys()


def test_counters_that_a_layout_does_not_have_are_told(tmp_path):
    ours = saved(tmp_path / 'ours.pth', dict(state_dict=sample('DETR')))
    assert rewrite(ours, tmp_path / 'release.pth', 'official')[1] == 'left out: 20 counters of batch norms'


def test_bits_of_numbers_that_equal_nothing_are_kept(tmp_path):
    state = dict(sample('PVT'))
    state['pos_embed1'] = torch.full_like(state['pos_embed1'], float('nan'))
    state['norm'] = torch.ones(2)  # of a classifier
    told = rewrite(saved(tmp_path / 'ours.pth', state), tmp_path / 'theirs.pth', 'mmdet')
    assert told[:2] == [f'{tmp_path}/ours.pth: recognised as pvt (PVT release)', 'left out: 1 (norm)']
    rewrite(tmp_path / 'theirs.pth', tmp_path / 'back.pth')
    assert weights_in(tmp_path / 'back.pth')['pos_embed1'].isnan().all()


def test_released_trans2seg_is_only_read(tmp_path):
    state = {
        key: torch.rand([min(side, 2) for side in shape]) for key, shape, *_ in layout_of('trans2seg_small')['keys']
    }
    told = rewrite(saved(tmp_path / 'theirs.pth', state), tmp_path / 'ours.pth')
    assert told[0].endswith('recognised as trans2seg (xieenze/Trans2Seg)')
    with pytest.raises(ValueError, match="trans2seg: unknown layout 'official'"):
        rewrite(tmp_path / 'ours.pth', tmp_path / 'back.pth', 'official')


@pytest.mark.parametrize(
    ('name', 'target', 'message'),
    [
        ('PVTv2', 'tim', "pvt_v2: unknown layout 'tim': did you mean 'timm'"),
        ('DETR', 'mmseg', "detr: unknown layout 'mmseg': did you mean 'mmdet'"),
        ('Swin', 'timm', "timm: key 'norm0.weight' does not belong to the timm layout"),
        ('DETR + PVT', 'official', "key 'backbone.pos_embed1' does not belong to the facebookresearch/detr layout"),
        ('YOLOS, whole', 'timm', "yolos: unknown layout 'timm'"),
        ('DeiT', 'mmseg', "mmseg BEiT/MAE: key 'dist_token' does not belong"),
    ],
)
def test_what_has_no_place_is_refused(name, target, message, tmp_path):
    source = saved(tmp_path / 'ours.pth', dict(state_dict=sample(name)))
    with pytest.raises(ValueError, match=f'^{source}: .*{re.escape(message)}'):
        rewrite(source, tmp_path / 'theirs.pth', target)
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
    ('state', 'message'),
    [
        ({'conv1.weight': torch.ones(1)}, r"no layout of pvt, .*; the first keys are \['conv1.weight'\]"),
        ({'backbone.stages.0.0.gamma': torch.ones(1)}, r'no layout of pvt, '),
        ('PVTv2', r"almost the PVTv2 release layout, which does not have 1 of the keys: \['mask_head\.0\.weight'\]"),
        (
            'DETR',
            r"almost the facebookresearch/detr layout, which does not have 1 of the keys: \['mask_head\.0\.weight'\]",
        ),
    ],
)
def test_unknown_weights_are_refused(state, message, tmp_path):
    if isinstance(state, str):
        rewrite(saved(tmp_path / 'a.pth', sample(state)), tmp_path / 'theirs.pth', 'official')
        state = unwrap(read(tmp_path / 'theirs.pth')) | {'mask_head.0.weight': torch.ones(1)}
    with pytest.raises(ValueError, match=message):
        rewrite(saved(tmp_path / 'a.pth', state), tmp_path / 'b.pth')
    assert not (tmp_path / 'b.pth').exists()


def run_tool(monkeypatch, *args: object) -> int:
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, args)])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(TOOL), run_name='__main__')
    return exit_.value.code


def test_files_that_cannot_be_read_or_written_are_refused_in_one_line(tmp_path, monkeypatch, capsys):
    source = saved(tmp_path / 'ours.pth', sample('YOLOS'))
    damaged, link, there = (tmp_path / name for name in ('damaged.pth', 'link.pth', 'there.pth'))
    damaged.write_bytes(source.read_bytes()[:5000])
    there.write_bytes(b'kept')
    link.symlink_to(source)
    cases = [
        (
            (tmp_path / 'our.pth', tmp_path / 'new.pth'),
            r"no checkpoint file '.*our\.pth'; checkpoints in .*: ours\.pth, ",
        ),
        ((damaged, tmp_path / 'new.pth'), r'checkpoint .*damaged\.pth is truncated'),
        ((source, there), r'.*there\.pth is there already; --overwrite replaces it'),
        ((source, source, '--overwrite'), r'.*ours\.pth is the source itself, expected another path'),
        ((source, link, '--overwrite'), r'.*link\.pth is the source itself, expected another path'),
        ((source, tmp_path, '--overwrite'), r'.* is a folder, expected the path of a file'),
        ((source, tmp_path / 'no/new.pth'), r'there is no folder .*/no to write new\.pth to'),
        ((source, tmp_path / 'new.pth', '--to', 'timm'), r".*ours\.pth: yolos: unknown layout 'timm'"),
    ]
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for args, message in cases:
        assert run_tool(monkeypatch, *args) == 2
        assert re.fullmatch(rf'error: {message}.*\n', capsys.readouterr().err)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_nothing_is_replaced_by_what_is_not_read_back(tmp_path, monkeypatch):
    source, there = saved(tmp_path / 'ours.pth', sample('YOLOS')), tmp_path / 'there.safetensors'
    there.write_bytes(b'kept')

    def corrupt(state, *args, **kwargs) -> None:
        state['det_token'][0, 0, 0] += 1
        save_file(state, *args, **kwargs)

    monkeypatch.setattr('vitdense.checkpoint.write.save_file', corrupt)
    with pytest.raises(RuntimeError, match=r"1 parameters are not read back as they were: \['det_token'\]"):
        rewrite(source, there, 'official', overwrite=True)
    assert there.read_bytes() == b'kept'
    assert set(tmp_path.iterdir()) == {source, there}


@pytest.mark.slow
def test_the_command_line(tmp_path):
    source = saved(tmp_path / 'ours.pth', sample('PVTv2'))
    (tmp_path / 'timm.safetensors').write_bytes(b'replaced')
    command = [sys.executable, TOOL, source, 'timm.safetensors', '--to', 'timm', '--overwrite']
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f'{source}: recognised as pvt_v2 (PVTv2 release)',
        f"timm.safetensors: written {len(sample('PVTv2'))} tensors in the layout 'timm', read back and found equal",
    ]
    assert weights_of(read(tmp_path / 'timm.safetensors')).sources == ['timm']
