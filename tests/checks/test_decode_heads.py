"""Heads, losses and metrics of segmentors against the labels of the maps."""

import pytest
import torch
from torch import nn

pytest.importorskip('mmseg')

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from mmseg.models import SegDataPreProcessor
from mmseg.structures import SegDataSample

from vitdense.checks import Run, check
from vitdense.datasets.scan import MapFacts, SplitReport
from vitdense.findings import Finding

CE = dict(type='CrossEntropyLoss')
SIGMOID = dict(type='CrossEntropyLoss', use_sigmoid=True)
CLASSES = ('road', 'car', 'sky')


class Segmentor(nn.Module):
    """The heads of a segmentor, and its preprocessor."""

    def __init__(self, decode_head: nn.Module, auxiliary_head: nn.Module | None, seg_pad_val: int) -> None:
        super().__init__()
        self.data_preprocessor = SegDataPreProcessor(seg_pad_val=seg_pad_val)
        self.decode_head, self.auxiliary_head = decode_head, auxiliary_head


def head(**settings) -> nn.Module:
    given = dict(type='FCNHead', in_channels=4, channels=4, num_convs=0, concat_input=False, num_classes=3, in_index=0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        return MODELS.build(given | settings)


def loss(module: nn.Module, labels: list[int], logits: torch.Tensor | None = None) -> torch.Tensor:
    """Loss of mmseg at an image of 2 x 2 pixels."""
    logits = torch.zeros(1, module.out_channels, 2, 2) if logits is None else logits
    sample = SegDataSample(gt_sem_seg=PixelData(data=torch.tensor(labels).view(1, 2, 2)))
    return sum(value for key, value in module.loss_by_feat(logits, [sample]).items() if key.startswith('loss'))


def found(
    decode_head: nn.Module,
    auxiliary_head: nn.Module | None = None,
    others: tuple[int, ...] = (255,),
    classes: tuple[str, ...] = CLASSES,
    metric: dict | None = None,
    splits: tuple[str, ...] = ('train', 'val'),
    seg_pad_val: int = 255,
    **node,
) -> list[Finding]:
    dataset = dict(type='BaseSegDataset', pipeline=[dict(type='LoadAnnotations')]) | node
    cfg = dict(default_scope='mmseg', model=dict(type='EncoderDecoder', decode_head=dict(), auxiliary_head=dict()))
    for split in splits:
        cfg |= {
            f'{split}_dataloader': dict(dataset=dataset),
            f'{split}_evaluator': dict(type='IoUMetric') | (metric or {}),
        }
    facts = MapFacts(4, others=list(others))
    reports = [SplitReport(f'{split}_dataloader.dataset', 'BaseSegDataset', classes, 4, maps=facts) for split in splits]
    run = Run(Config(cfg), splits, reports, Segmentor(decode_head, auxiliary_head, seg_pad_val))
    both = [*check(run, 'data'), *check(run, 'model')]
    return [finding for finding in both if finding.kind not in ('batch norm of one value', 'number of classes')]


def keys(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.kind, finding.where) for finding in findings]


@pytest.mark.parametrize(
    'given',
    [
        [head()],
        [head(), head(loss_decode=[CE, dict(type='LovaszLoss', reduction='none')])],
        [head(loss_decode=dict(type='TverskyLoss'))],
        [head(sampler=dict(type='OHEMPixelSampler', thresh=0.7, min_kept=4))],
        [head(loss_decode=SIGMOID)],
    ],
)
def test_heads_as_they_should_be_have_no_finding(given):
    assert found(*given) == []


@pytest.mark.parametrize('channels', [1, 2])
def test_two_classes_with_one_channel_or_two(channels):
    classes = ('background', 'crack')
    assert found(head(num_classes=2, out_channels=channels, loss_decode=SIGMOID), classes=classes) == []
    assert found(head(num_classes=2), classes=classes) == []


@pytest.mark.parametrize('losses', [CE, [dict(CE, class_weight=[1.0])]])
def test_softmax_over_one_channel(losses):
    """Its loss is 0 whatever the logits are."""
    module = head(num_classes=2, out_channels=1, loss_decode=losses)
    logits = torch.randn(1, 1, 2, 2, requires_grad=True)
    loss(module, [0, 0, 0, 0], logits).sum().backward()
    assert logits.grad.abs().max() == 0
    [finding] = found(module, classes=('background', 'crack'))
    assert finding.kind == 'one channel that the loss cannot teach'
    assert finding.where.startswith('model.decode_head.loss_decode')
    assert 'does not depend on the label' in finding.found


def test_dice_of_one_channel_is_upside_down():
    """DiceLoss of mmseg takes class 0 for the channel: its loss is lower where background has the higher logits."""
    module = head(num_classes=2, out_channels=1, loss_decode=[SIGMOID, dict(type='DiceLoss')])
    dice = module.loss_decode[1]
    high, low = torch.full((1, 1, 2, 2), 3.0), torch.full((1, 1, 2, 2), -3.0)
    background = torch.zeros(1, 2, 2, dtype=torch.long)
    assert dice(high, background) < dice(low, background)
    [finding] = found(module, others=(), classes=('background', 'crack'))
    assert keys([finding]) == [('one channel that the loss cannot teach', 'model.decode_head.loss_decode.1')]
    assert 'lowers the logit where the label is 1' in finding.found


@pytest.mark.parametrize('node', [dict(), dict(ignore_index=250)])
def test_another_label_than_the_head_ignores(node):
    """Seen in the maps, or only said by the data set."""
    with pytest.raises(IndexError):
        loss(head(), [0, 1, 2, 250])
    others = () if node else (250,)
    findings = found(head(), head(ignore_index=250), others=others, metric=dict(ignore_index=250), **node)
    assert ('label that a head does not ignore', 'model.decode_head.ignore_index') in keys(findings)
    finding = next(finding for finding in findings if finding.fatal)
    assert finding.found == '255, where the maps of the training have 250'
    assert finding.remedy == '--cfg-options model.decode_head.ignore_index=250'
    assert [kind for kind, _ in keys(findings)] == [
        'label that a head does not ignore',
        'heads that ignore different labels',
    ]


def test_an_ignored_value_of_16_bits_is_a_label_of_8():
    """mmseg casts 65535 to 255, whatever the data set says."""
    assert found(head(), ignore_index=65535) == []
    findings = found(head(ignore_index=65535), ignore_index=65535, seg_pad_val=65535)
    assert keys(findings) == [('label that a head does not ignore', 'model.decode_head.ignore_index')]


def test_a_metric_that_counts_what_is_ignored():
    [finding] = [one for one in found(head(ignore_index=250), others=(250,)) if one.fatal]
    assert keys([finding]) == [('ignored label that the metric counts', 'val_evaluator.ignore_index')]
    assert finding.found == '255, where val_dataloader.dataset ignores 250'
    given = dict(metric=dict(ignore_index=250), seg_pad_val=250)
    assert found(head(ignore_index=250), others=(250,), **given) == []


def test_two_ignored_labels_need_other_maps():
    kinds = {kind for kind, _ in keys(found(head(), others=(250, 255)))}
    assert kinds == {'label that a head does not ignore', 'ignored label that the metric counts'}
    assert all('the same value in all maps' in finding.remedy for finding in found(head(), others=(250, 255)))


@pytest.mark.parametrize('kind', ['TverskyLoss', 'OhemCrossEntropy'])
def test_losses_with_an_ignored_label_of_their_own(kind):
    name = 'ignore_index' if kind == 'TverskyLoss' else 'ignore_label'
    given = dict(ignore_index=250, metric=dict(ignore_index=250), seg_pad_val=250)
    findings = found(head(ignore_index=250, loss_decode=dict(type=kind)), **given, others=(250,))
    assert ('label that a head does not ignore', f'model.decode_head.loss_decode.{name}') in keys(findings)
    right = dict(type=kind, **{name: 250})
    assert found(head(ignore_index=250, loss_decode=right), **given, others=(250,)) == []


def test_heads_of_masks_and_their_class_weights():
    """A head of the kind of Mask2Former, whose loss has a weight for no object too."""

    class MaskHead(nn.Module):
        num_classes, ignore_index = 3, 255

        def __init__(self, weights: int) -> None:
            super().__init__()
            self.loss_cls = nn.Module()
            self.loss_cls.class_weight = [1.0] * (weights - 1) + [0.1]

    assert found(MaskHead(4)) == []
    [finding] = found(MaskHead(151))
    assert keys([finding]) == [('class weights of another number', 'model.decode_head.loss_cls.class_weight')]
    assert (finding.found, finding.expected) == ('151 weights', '4')
    assert ('label that a head does not ignore', 'model.decode_head.ignore_index') in keys(
        found(MaskHead(4), others=(9,))
    )


def test_class_weights_of_another_number():
    module = head(loss_decode=dict(CE, class_weight=[1.0] * 19))
    with pytest.raises(RuntimeError):
        loss(module, [0, 1, 2, 2])
    [finding] = found(module)
    assert keys([finding]) == [('class weights of another number', 'model.decode_head.loss_decode.class_weight')]


def test_losses_of_masks_are_not_asked_about_pixels():
    """A head as that of SAN, whose first loss is of the classes of masks and of no object."""
    module = head(loss_decode=[dict(CE, class_weight=[1.0, 1.0, 1.0, 0.1]), dict(type='DiceLoss')])
    module.match_masks = nn.Module()
    assert found(module) == []


def test_dice_learns_from_ignored_pixels():
    """The gradient of mmseg's loss is not 0 there."""
    module = head(loss_decode=[CE, dict(type='DiceLoss')])
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss(module, [0, 1, 2, 255], logits).sum().backward()
    assert logits.grad[..., 1, 1].abs().max() > 0
    [finding] = found(module)
    assert keys([finding]) == [('loss that learns from ignored pixels', 'model.decode_head.loss_decode.1')]
    assert not finding.fatal
    assert found(module, others=()) == [], 'no map has ignored pixels'


@pytest.mark.parametrize('given', [dict(ignore_index=0), dict(loss_decode=dict(CE, class_weight=[0.0, 1.0, 1.0]))])
def test_a_class_that_is_never_trained_on_and_counts(given):
    [finding] = found(head(**given), others=())
    assert (finding.kind, finding.fatal) == ('class that is not trained and is evaluated', False)
    assert finding.found == "class 0 ('road') is never trained on, and val_evaluator counts it"
    assert found(head(**given), others=(), metric=dict(ignore_index=0)) == []


def test_a_class_that_is_trained_on_and_does_not_count():
    [finding] = found(head(), metric=dict(ignore_index=0), others=())
    assert keys([finding]) == [('class that is trained and not evaluated', 'val_evaluator.ignore_index')]
    assert not finding.fatal


def test_an_auxiliary_head_that_learns_the_background():
    findings = found(head(ignore_index=0), head(), metric=dict(ignore_index=0), others=())
    assert keys(findings) == [('heads that ignore different labels', 'model.auxiliary_head.ignore_index')]


@pytest.mark.parametrize(('value', 'said'), [(0, "0 ('road')"), (250, '250'), (255, None)])
def test_padding_that_is_trained_on(value, said):
    """In the preprocessor and in the steps of the pipeline."""
    module = head()
    steps = [
        dict(type='LoadAnnotations'),
        dict(type='RandomRotate', prob=0.5, degree=5, seg_pad_val=value),
        dict(type='Pad', size=(8, 8), pad_val=dict(img=0, seg=value)),
    ]
    findings = found(module, pipeline=steps, seg_pad_val=value)
    wheres = [
        'model.data_preprocessor.seg_pad_val',
        *(f'train_dataloader.dataset.pipeline.{kind}' for kind in ('RandomRotate', 'Pad')),
    ]
    assert keys(findings) == [('padding that is trained on', where) for where in wheres if said]
    assert {finding.found for finding in findings} <= {f'{said}, and model.decode_head ignores 255'}


def test_a_test_asks_nothing_of_losses():
    module = head(num_classes=2, out_channels=1)
    classes = ('background', 'crack')
    assert found(module, classes=classes, splits=('test',)) == []
    assert [kind for kind, _ in keys(found(module, others=(9,), splits=('test',)))] == [
        'ignored label that the metric counts'
    ]
    assert found(module, others=(9,), splits=('test',), metric=dict(format_only=True, output_dir='x')) == []
