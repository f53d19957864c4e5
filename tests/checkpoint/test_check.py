"""A checkpoint of another model is an error."""

import re

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModel
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner, load_checkpoint, save_checkpoint
from support.backbones import release
from torch import nn

from vitdense.checkpoint.check import check_fit
from vitdense.checkpoint.read import read
from vitdense.checkpoint.translate import convert
from vitdense.config.load import config_path
from vitdense.models.backbones import PVTv2, Swin


class Net(BaseModel):
    """Stem of 4 * 27 + 4 values, norm of 8 parameters and 8 values in buffers, head of 4 * K + K."""

    def __init__(self, classes: int = 3, width: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.bbox_head = nn.Linear(width, classes)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return dict(loss=self.bbox_head(self.norm(self.stem(inputs)).mean((2, 3))).sum())


STEM, NORM = 4 * 27 + 4, 8 + 8


def test_line_of_a_checkpoint_that_fits():
    for purpose in ('load_from', '--resume', 'checkpoint'):
        line = check_fit(Net(), Net().state_dict(), 'a.pth', purpose=purpose)
        assert line == 'loaded 100 % of parameters from a.pth'


def test_other_classes_start_afresh_and_parts_of_other_models_are_left_out():
    state = Net(classes=5).state_dict()
    state['neck.weight'] = torch.zeros(3)
    state['aux.0.weight'] = torch.zeros(3)
    share = 100 * (STEM + NORM) / (STEM + NORM + 15)
    line = check_fit(Net(), state, 'a.pth', allow_partial=True)
    assert line == f'loaded {share:.1f} % of parameters from a.pth, fresh 2 (bbox_head.*), left out 2 (neck.*, aux.*)'
    for purpose in ('--resume', 'checkpoint'):
        with pytest.raises(ValueError, match=rf'^{purpose}: a\.pth has {share:.1f} % of the parameters'):
            check_fit(Net(), state, 'a.pth', purpose=purpose, allow_partial=True)


class Deep(Net):
    """A net with a body that is most of it, of ``depth`` layers, and maybe a branch."""

    def __init__(self, depth: int = 2, branch: bool = False, **kwargs) -> None:
        super().__init__(**kwargs)
        self.backbone = nn.Module()
        self.backbone.layers = nn.Sequential(*(nn.Linear(50, 50) for _ in range(depth)))
        if branch:
            self.branch = nn.Linear(2, 2)


@pytest.mark.parametrize('purpose', ['load_from', 'checkpoint'])
def test_more_layers_than_the_model_has_are_an_error(purpose):
    """All parameters of the model would be filled: those of a Swin-T by a Swin-S."""
    with pytest.raises(
        ValueError, match=r'has 100 % of the parameters of Deep, but is not of the same layers'
    ) as error:
        check_fit(Deep(), Deep(depth=3).state_dict(), 'a.pth', purpose=purpose)
    assert 'unexpected: backbone.layers.2.weight, backbone.layers.2.bias' in str(error.value)
    assert ('allow_partial=True' in str(error.value)) == (purpose == 'load_from')


def test_a_layer_that_the_file_lacks_is_an_error_also_where_it_is_small():
    state = Deep().state_dict()
    del state['norm.bias']
    with pytest.raises(ValueError, match=r'not of the same layers[\s\S]*missing: norm\.bias\n'):
        check_fit(Deep(), state, 'a.pth')
    assert check_fit(Deep(), state, 'a.pth', allow_partial=True).endswith('from a.pth, missing 1 (norm.*)')


def test_a_part_that_the_file_lacks_starts_afresh():
    line = check_fit(Deep(branch=True), Deep().state_dict(), 'a.pth')
    assert re.fullmatch(r'loaded 99\.\d % of parameters from a\.pth, fresh 2 \(branch\.\*\)', line)


def test_auxiliary_heads_may_differ_where_only_training_uses_them():
    model, other = Deep(), Deep()
    model.auxiliary_head = nn.ModuleList([nn.Linear(4, 2), nn.Linear(4, 2)])
    other.auxiliary_head = nn.ModuleList([nn.Sequential(nn.Linear(4, 2)), nn.Linear(5, 2)])
    state = other.state_dict()
    assert check_fit(model, state, 'a.pth', purpose='checkpoint').startswith('loaded 100 % of parameters')
    line = check_fit(model, state, 'a.pth')
    assert re.fullmatch(r'loaded 99\.\d % .*, fresh 3 \(auxiliary_head\.\*\), left out 2 \(auxiliary_head\.\*\)', line)
    with pytest.raises(ValueError, match='at least 100 % must be there'):
        check_fit(model, state, 'a.pth', purpose='--resume')


def test_other_rows_are_of_heads_only():
    state = Deep().state_dict()
    state['backbone.layers.0.bias'] = torch.zeros(51)
    with pytest.raises(
        ValueError, match=r'other shape: backbone\.layers\.0\.bias: the model has \(50,\), the file \(51'
    ):
        check_fit(Deep(), state, 'a.pth')


def test_too_little_is_an_error_with_the_share_and_the_keys():
    state = Net(width=6).state_dict()
    checkpoint = dict(meta=dict(cfg="a = 1\nmodel = dict(backbone=dict(type='ResNet'), type='FCOS')"), state_dict=state)
    with pytest.raises(
        ValueError, match=r'^load_from: a\.pth has 2\.1 % of the parameters of Net \(3 of 143 '
    ) as error:
        check_fit(Net(), checkpoint, 'a.pth')
    message = str(error.value)
    assert 'at least 90 % must be there' in message
    assert 'its config says FCOS with ResNet, this is Net' in message
    assert 'stem.weight: the model has (4, 3, 3, 3), the file (6, 3, 3, 3)' in message
    assert ' and 2 more' in message


def test_five_of_each_kind_are_listed():
    names = [f'layer{i}.weight' for i in range(7)]
    with pytest.raises(ValueError, match=r'^--resume: a\.pth has 0 %') as error:
        check_fit(Net(), {name: torch.zeros(2) for name in names}, 'a.pth', purpose='--resume')
    assert f'unexpected: {", ".join(names[:5])} and 2 more' in str(error.value)
    assert 'missing: stem.weight, stem.bias, norm.weight, norm.bias, norm.running_mean and ' in str(error.value)
    assert 'layer5' not in str(error.value)


@pytest.mark.parametrize('missing', ['stem.bias', 'norm.running_mean'])
@pytest.mark.parametrize('purpose', ['--resume', 'checkpoint'])
def test_resume_and_test_need_everything(missing, purpose):
    state = Net().state_dict()
    del state[missing]
    with pytest.raises(ValueError, match=rf'at least 100 % must be there[\s\S]*missing: {missing}'):
        check_fit(Net(), state, 'a.pth', purpose=purpose)


def test_counters_that_old_pytorch_did_not_save_may_be_missing():
    state = dict(Net().state_dict())
    del state['norm.num_batches_tracked']
    check_fit(Net(), state, 'a.pth', purpose='checkpoint')


@pytest.mark.parametrize('wrapped', [False, True])
def test_prefix_of_data_parallel_models_is_taken_off_as_mmengine_does(wrapped):
    model, state = Net(), {f'module.{key}': value for key, value in Net().state_dict().items()}
    check_fit(model, dict(state_dict=state) if wrapped else state, 'a.pth', purpose='checkpoint')


def test_model_and_checkpoint_are_left_as_they_were():
    model, state = Net(), Net(classes=5).state_dict()
    own, keys = {key: value.clone() for key, value in model.state_dict().items()}, list(state)
    check_fit(model, state, 'a.pth', allow_partial=True)
    assert all(torch.equal(value, own[key]) for key, value in model.state_dict().items())
    assert list(state) == keys
    assert {p.device.type for p in model.parameters()} == {'cpu'}


def test_keys_that_mmdet_renames_when_it_loads():
    """``SingleStageDetector`` takes the ``rpn_head`` of a two-stage checkpoint as its ``bbox_head``."""
    init_default_scope('mmdet')
    cfg = Config.fromfile(config_path('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'))
    model = MODELS.build(ConfigDict({**cfg.model, 'backbone': {**cfg.model.backbone, 'init_cfg': None}}))
    state = {key.replace('bbox_head.', 'rpn_head.'): value for key, value in model.state_dict().items()}
    assert check_fit(model, state, 'a.pth', purpose='checkpoint') == 'loaded 100 % of parameters from a.pth'
    head = MODELS.build(ConfigDict({**cfg.model, 'bbox_head': {**cfg.model.bbox_head, 'num_classes': 3}}))
    assert re.fullmatch(r'loaded \d\d\.\d % of parameters from a\.pth, fresh 2 \(bbox_head\.\*\)',
                        check_fit(head, state, 'a.pth'))  # fmt: skip
    other = MODELS.build(ConfigDict({**cfg.model.backbone, 'init_cfg': None}))
    with pytest.raises(ValueError, match=r'missing: conv1\.weight'):
        check_fit(other, state, 'a.pth')


def test_mmengine_alone_does_not_train_on_with_a_checkpoint_of_another_model_either(tmp_path):
    path = tmp_path / 'other.pth'
    save_checkpoint(dict(meta={}, state_dict=nn.Sequential(nn.Linear(9, 9)).state_dict()), str(path))
    data = torch.utils.data.TensorDataset(torch.zeros(2, 3, 8, 8))
    runner = Runner(
        model=Net(), work_dir=str(tmp_path / 'work'), load_from=str(path), experiment_name='bare',
        train_cfg=dict(by_epoch=True, max_epochs=1),
        train_dataloader=dict(dataset=data, sampler=dict(type='DefaultSampler', shuffle=False), batch_size=2,
                              collate_fn=lambda batch: dict(inputs=torch.stack([item[0] for item in batch]))),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
    )  # fmt: skip
    with pytest.raises(ValueError, match=r'nothing of .*other\.pth fits Net'):
        runner.train()
    with pytest.raises(ValueError, match=r'other\.pth has 0 % of the parameters of Net'):
        check_fit(Net(), read(path), path)


def test_checkpoint_of_mmengine_is_read(tmp_path):
    model, path = Net(), tmp_path / 'epoch_1.pth'
    save_checkpoint(dict(meta=dict(epoch=1), state_dict=model.state_dict()), str(path))
    content = read(path)
    assert content['meta']['epoch'] == 1
    check_fit(model, content, path, purpose='checkpoint')
    other = Net()
    load_checkpoint(other, str(path))
    assert all(torch.equal(content['state_dict'][key], value) for key, value in other.state_dict().items())


def small_swin(out_indices: tuple[int, ...] = (0, 1, 2, 3)) -> nn.Module:
    return Swin('tiny', embed_dims=16, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8), out_indices=out_indices)


def in_a_detector(backbone: nn.Module) -> nn.Module:
    """With a head so small that the backbone is more than 90 % of it."""
    return nn.ModuleDict({'backbone': backbone, 'bbox_head': nn.Linear(2, 2)})


def without(state: dict, pattern: str) -> dict:
    return {key: value for key, value in state.items() if not re.search(pattern, key)}


def with_more(state: dict, *keys: str) -> dict:
    return {**state, **{key: torch.zeros(2) for key in keys}}


LACKS = {
    'norms of the maps': (lambda state: without(state, r'^norm\d\.'), 'fresh 8'),
    'one of these norms': (lambda state: without(state, r'^norm0\.'), 'fresh 2'),
    'a bias': (lambda state: without(state, r'layers\.0\.blocks\.0\.mlp\.fc1\.bias'), None),
    'a block': (lambda state: without(state, r'layers\.3\.blocks'), None),
    'nothing, and has a block more': (lambda state: with_more(state, 'layers.3.blocks.1.norm1.weight'), None),
    'nothing, and has counts of a profiler': (
        lambda state: with_more(state, 'total_ops', 'layers.0.blocks.0.attn.total_params'),
        'left out 2',
    ),
}


@pytest.mark.parametrize('lack', LACKS)
@pytest.mark.parametrize('place', ['init_cfg', 'load_from'])
def test_one_rule_for_a_backbone_alone_and_in_a_model(lack, place):
    change, expected = LACKS[lack]
    model, state = small_swin(), change(small_swin().state_dict())
    if place == 'load_from':
        model, state = in_a_detector(model), {f'backbone.{key}': value for key, value in state.items()}
        state |= dict(model.bbox_head.state_dict(prefix='bbox_head.'))
    if expected:
        assert f', {expected} (' in check_fit(model, state, 'a.pth', purpose=place)
        return
    with pytest.raises(ValueError, match=rf'^{place}: a\.pth has [\d.]+ % of the .*parameters of '):
        check_fit(model, state, 'a.pth', purpose=place)


@pytest.mark.parametrize('purpose', ['load_from', '--resume', 'checkpoint'])
def test_counts_that_a_profiler_left_behind_do_not_count(purpose):
    state = with_more(Net().state_dict(), 'total_ops', 'total_params', 'stem.total_ops', 'bbox_head.total_params')
    assert check_fit(Net(), state, 'a.pth', purpose=purpose).startswith('loaded 100 % of parameters from a.pth, left')


def test_counts_of_a_profiler_in_files_of_others():
    state = with_more(release('pvt_v2_b0'), 'total_ops', 'block1.0.attn.q.total_params')
    converted, dropped = convert(state, 'pvt_v2')
    assert {'total_ops', 'block1.0.attn.q.total_params'} < set(dropped)
    assert converted.keys() == PVTv2('b0').state_dict().keys()
