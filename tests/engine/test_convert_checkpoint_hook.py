"""What a run loads is converted: by the hook in our runner, and in that of mmengine."""

import pytest
import timm
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner as MMEngineRunner
from support.backbones import image, randomize_, save
from torch import nn

from vitdense.checkpoint.translate import convert
from vitdense.engine.hooks import CheckpointHook, ConvertCheckpointHook
from vitdense.engine.runner import Runner
from vitdense.models.backbones import PVTv2


class Detector(BaseModel):
    """PVTv2-b0 and a head for ``classes``."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.backbone = PVTv2('b0')
        self.bbox_head = nn.Linear(256, classes)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        scores = self.bbox_head(self.backbone(torch.stack(inputs))[-1].mean((2, 3)))
        return dict(loss=scores.sum()) if mode == 'loss' else scores


class Images(torch.utils.data.Dataset):
    metainfo = dict(classes=('cat', 'dog', 'cow'))

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> dict:
        return dict(inputs=image((32, 64))[0])


def runner(kind: type, folder, model: Detector, load_from: str, **kwargs) -> MMEngineRunner:
    hooks = dict(checkpoint=CheckpointHook(interval=1))
    if kind is MMEngineRunner:
        kwargs['custom_hooks'] = [ConvertCheckpointHook()]
    return kind(
        model=model,
        work_dir=str(folder / 'run'),
        train_dataloader=dict(dataset=Images(), sampler=dict(type='DefaultSampler', shuffle=False), batch_size=2),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.0)),
        default_hooks=hooks,
        load_from=load_from,
        experiment_name=str(folder),
        **kwargs,
    )


@pytest.fixture(scope='module')
def theirs() -> nn.Module:
    return randomize_(timm.create_model('pvt_v2_b0', num_classes=0))


@pytest.fixture
def lines(monkeypatch) -> list[str]:
    told: list[str] = []
    monkeypatch.setattr('vitdense.engine.hooks.convert_checkpoint.say', told.append)
    return told


@pytest.mark.parametrize('kind', [Runner, MMEngineRunner])
def test_load_from_converts(tmp_path, lines, theirs, kind):
    """A checkpoint with the backbone of timm and a head of other classes."""
    state = {f'backbone.{key}': value for key, value in theirs.state_dict().items()}
    head = nn.Linear(256, 5).state_dict(prefix='bbox_head.')
    path = save(tmp_path, dict(meta={}, state_dict={**state, **head}))
    model = Detector()
    fresh = model.bbox_head.weight.detach().clone()
    runner(kind, tmp_path, model, path).train()
    expected, _ = convert(theirs.state_dict(), 'pvt_v2')
    assert all(torch.equal(value, expected[key]) for key, value in model.backbone.state_dict().items())
    assert torch.equal(model.bbox_head.weight, fresh)
    assert lines == [f'loaded 99.9 % of parameters from {path} (timm), fresh 2 (bbox_head.*)']


def test_resuming_needs_a_run_of_the_same_model(tmp_path, lines, theirs):
    first = runner(Runner, tmp_path, Detector(), None)
    first.train()
    last = str(tmp_path / 'run/last.pth')
    runner(Runner, tmp_path, Detector(), last, resume=True).train()
    assert lines == [f'loaded 100 % of parameters from {last}']
    content = torch.load(last, weights_only=True)
    state = {f'backbone.{key}': value for key, value in theirs.state_dict().items()}
    state |= {key: value for key, value in content['state_dict'].items() if key.startswith('bbox_head.')}
    path = save(tmp_path, {**content, 'state_dict': state})
    model = Detector()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r'^--resume: the weights of .*weights\.pth would be converted \(timm\)'):
        runner(Runner, tmp_path, model, path, resume=True).train()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class Scores(BaseMetric):
    def process(self, data_batch, data_samples) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list) -> dict:
        return dict(count=len(results))


@pytest.mark.parametrize('kind', [Runner, MMEngineRunner])
def test_a_test_needs_all_of_the_model_also_with_a_config_that_can_train(tmp_path, lines, theirs, kind):
    loader = dict(dataset=Images(), sampler=dict(type='DefaultSampler', shuffle=False), batch_size=2)
    test = dict(test_dataloader=loader, test_cfg=dict(), test_evaluator=Scores())
    state = {f'backbone.{key}': value for key, value in theirs.state_dict().items()}
    head = nn.Linear(256, 5).state_dict(prefix='bbox_head.')
    other = save(tmp_path, dict(meta={}, state_dict={**state, **head}))
    with pytest.raises(
        ValueError, match=r'^checkpoint: .*weights\.pth \(timm\) has 99\.9 % .*at least 100 % must be there'
    ):
        runner(kind, tmp_path / 'other', Detector(), other, **test).test()
    same = save(tmp_path, dict(meta={}, state_dict={**state, **nn.Linear(256, 3).state_dict(prefix='bbox_head.')}))
    assert runner(kind, tmp_path / 'same', Detector(), same, **test).test() == dict(count=1)
    assert lines == [f'loaded 100 % of parameters from {same} (timm)']


def test_weights_of_a_backbone_say_where_they_go(tmp_path, theirs):
    path = save(tmp_path, theirs.state_dict())
    with pytest.raises(ValueError, match=r'^load_from: .*weights\.pth has 0 % .*init_cfg=.*vitdense\.Pretrained'):
        runner(Runner, tmp_path, Detector(), path).train()


def test_an_unknown_key_is_named_with_setting_and_file(tmp_path, theirs):
    state = {f'backbone.{key}': value for key, value in theirs.state_dict().items()}
    path = save(tmp_path, dict(state_dict={**state, 'backbone.extra.weight': torch.zeros(1)}))
    with pytest.raises(ValueError, match=rf"^load_from: {path}: key 'extra\.weight' does not belong to the timm"):
        runner(Runner, tmp_path, Detector(), path).train()
