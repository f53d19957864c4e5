"""A checkpoint of another model is an error; reading one runs no code from it."""

import pickle
import re

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModel
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner, load_checkpoint, save_checkpoint
from torch import nn

from vitdense.engine.config import config_path
from vitdense.engine.fit import check_fit, read_checkpoint


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
    assert check_fit(Net(), Net().state_dict(), 'a.pth', least=1.0) == 'loaded 100 % of parameters from a.pth'


def test_other_head_missing_and_extra_keys_are_named():
    state = Net(classes=5).state_dict()
    del state['norm.bias']
    state['neck.weight'] = torch.zeros(3)
    total = STEM + NORM + 15
    share = 100 * (STEM + NORM - 4) / total
    line = check_fit(Net(), state, 'a.pth', least=0.8)
    assert line == (
        f'loaded {share:.1f} % of parameters from a.pth, other shape: bbox_head.*, missing: norm.*, unexpected: neck.*'
    )


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
    with pytest.raises(ValueError, match=r'resume: a\.pth has 0 %') as error:
        check_fit(Net(), {name: torch.zeros(2) for name in names}, 'a.pth', what='resume')
    assert f'unexpected: {", ".join(names[:5])} and 2 more' in str(error.value)
    assert 'missing: stem.weight, stem.bias, norm.weight, norm.bias, norm.running_mean and ' in str(error.value)
    assert 'layer5' not in str(error.value)


@pytest.mark.parametrize('missing', ['stem.bias', 'norm.running_mean'])
def test_resume_and_test_need_everything(missing):
    state = Net().state_dict()
    del state[missing]
    assert f'missing: {missing.split(".")[0]}.*' in check_fit(Net(), state, 'a.pth', least=0.9)
    with pytest.raises(ValueError, match=f'missing: {missing}'):
        check_fit(Net(), state, 'a.pth', least=1.0, what='checkpoint')


def test_counters_that_old_pytorch_did_not_save_may_be_missing():
    state = dict(Net().state_dict())
    del state['norm.num_batches_tracked']
    check_fit(Net(), state, 'a.pth', least=1.0)


@pytest.mark.parametrize('wrapped', [False, True])
def test_prefix_of_data_parallel_models_is_taken_off_as_mmengine_does(wrapped):
    model, state = Net(), {f'module.{key}': value for key, value in Net().state_dict().items()}
    check_fit(model, dict(state_dict=state) if wrapped else state, 'a.pth', least=1.0)


def test_model_and_checkpoint_are_left_as_they_were():
    model, state = Net(), Net(classes=5).state_dict()
    own, keys = {key: value.clone() for key, value in model.state_dict().items()}, list(state)
    check_fit(model, state, 'a.pth', least=0.5)
    assert all(torch.equal(value, own[key]) for key, value in model.state_dict().items())
    assert list(state) == keys
    assert {p.device.type for p in model.parameters()} == {'cpu'}


def test_keys_that_mmdet_renames_when_it_loads():
    """``SingleStageDetector`` takes the ``rpn_head`` of a two-stage checkpoint as its ``bbox_head``."""
    init_default_scope('mmdet')
    cfg = Config.fromfile(config_path('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'))
    model = MODELS.build(ConfigDict({**cfg.model, 'backbone': {**cfg.model.backbone, 'init_cfg': None}}))
    state = {key.replace('bbox_head.', 'rpn_head.'): value for key, value in model.state_dict().items()}
    assert check_fit(model, state, 'a.pth', least=1.0) == 'loaded 100 % of parameters from a.pth'
    head = MODELS.build(ConfigDict({**cfg.model, 'bbox_head': {**cfg.model.bbox_head, 'num_classes': 3}}))
    assert re.fullmatch(r'loaded \d\d\.\d % of parameters from a\.pth, other shape: bbox_head\.\*',
                        check_fit(head, state, 'a.pth'))  # fmt: skip
    other = MODELS.build(ConfigDict({**cfg.model.backbone, 'init_cfg': None}))
    with pytest.raises(ValueError, match=r'missing: conv1\.weight'):
        check_fit(other, state, 'a.pth')


def test_mmengine_alone_trains_on_with_a_checkpoint_of_another_model(tmp_path):
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
    runner.train()
    assert runner.epoch == 1
    with pytest.raises(ValueError, match=r'other\.pth has 0 % of the parameters of Net'):
        check_fit(Net(), read_checkpoint(path)[1], path)


def test_checkpoint_of_mmengine_is_read(tmp_path):
    model, path = Net(), tmp_path / 'epoch_1.pth'
    save_checkpoint(dict(meta=dict(epoch=1), state_dict=model.state_dict()), str(path))
    found, content = read_checkpoint(str(path))
    assert found == path
    assert content['meta']['epoch'] == 1
    check_fit(model, content, found, least=1.0)
    other = Net()
    load_checkpoint(other, str(path))
    assert all(torch.equal(content['state_dict'][key], value) for key, value in other.state_dict().items())


class Harmful:
    def __reduce__(self):
        return print, ('code was run',)


def test_code_in_a_checkpoint_is_not_run(tmp_path, capsys):
    path = tmp_path / 'bad.pth'
    torch.save(dict(state_dict=Net().state_dict(), meta=Harmful()), path)
    with pytest.raises(ValueError, match=rf'checkpoint {re.escape(str(path))} cannot be read as a checkpoint of plain'):
        read_checkpoint(path)
    assert 'code was run' not in capsys.readouterr().out


def test_what_is_no_checkpoint_is_named(tmp_path):
    good = tmp_path / 'epoch_12.pth'
    torch.save(Net().state_dict(), good)
    whole = good.read_bytes()
    files = {
        'empty': (b'', 'is empty'),
        'truncated': (
            whole[: len(whole) // 2],
            rf'is truncated: {len(whole) // 2} bytes are there, its end is missing',
        ),
        'text': (b'<html>\n<body>Not found', r"is a text file that begins with '<html>'"),
        'image': (b'\x89PNG\r\n\x1a\n' + bytes(64), 'cannot be read as a checkpoint of plain tensors'),
        'list': (pickle.dumps([1, 2], protocol=2), 'cannot be read as a checkpoint of plain tensors|expected a dict'),
    }
    for name, (content, message) in files.items():
        path = tmp_path / f'{name}.pth'
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f'checkpoint {re.escape(str(path))} .*({message})'):
            read_checkpoint(path)
        path.unlink()
    with pytest.raises(ValueError, match=r'is a folder, expected a file; checkpoints in .*: epoch_12\.pth'):
        read_checkpoint(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"no checkpoint file '.*epoch_21\.pth'; checkpoints in .*epoch_12\.pth"
    ):
        read_checkpoint(tmp_path / 'epoch_21.pth')
    with pytest.raises(FileNotFoundError, match=r"no checkpoint file '.*a/b\.pth'$"):
        read_checkpoint(tmp_path / 'a/b.pth')
