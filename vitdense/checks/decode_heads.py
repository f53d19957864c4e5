"""Do the heads and losses of a segmentor go with the labels of its maps, and with what its metrics count?"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vitdense.config.class_counts import classifying_heads, place_of
from vitdense.names import listed
from vitdense.registry import bare_type

from .rules import Case, rule
from .run import Run
from .segmentation import ONE_LABEL, counts, ignored_labels, of_maps, steps


class Head(NamedTuple):
    """A head of a segmentor: its key in the config, and the losses that get logits of pixels, with their keys."""

    key: str
    module: Any
    losses: list[tuple[str, Any]]

    @property
    def ignores(self) -> int | None:
        """The label that it ignores."""
        return self.module.ignore_index

    @property
    def is_auxiliary(self) -> bool:
        """Whether it helps in training only."""
        return self.key.startswith('model.auxiliary_head')


def heads_of(run: Run) -> list[Head]:
    """The heads of a segmentor that is trained on scanned maps."""
    model = run.model
    if model is None or not run.trains or not any(maps.split.name == 'train' for maps in of_maps(run)):
        return []
    found = []
    for name, module in classifying_heads(model):
        if hasattr(module, 'ignore_index'):
            key = f'model.{place_of(name, run.cfg.get("model"))}'
            matches = hasattr(module, 'match_masks')  # its losses are of masks, each with its class
            losses = None if matches else getattr(module, 'loss_decode', None)
            if isinstance(losses, nn.ModuleList):
                found.append(Head(key, module, [(f'{key}.loss_decode.{i}', loss) for i, loss in enumerate(losses)]))
            else:
                found.append(Head(key, module, [(f'{key}.loss_decode', losses)] if losses is not None else []))
    return found


def labels_without_class(run: Run) -> set[int]:
    """Labels of the training's maps that are no class."""
    train = [maps for maps in of_maps(run) if maps.split.name == 'train']
    return {label for _, node, report, facts in train for label in ignored_labels(node, report.classes, facts)}


@rule(
    'label that a head does not ignore',
    looks_at='labels in the opened maps of the training, `ignore_index` of data sets, of all heads, and of losses with '
    'one of their own',
    expected='the label that the maps have where there is no class; on another one the loss fails, or learns from it',
    needs='model',
)
def not_ignored(run: Run) -> Iterator[Case]:
    labels = labels_without_class(run)
    for key, ignored in _ignoring(run):
        wrong = sorted(labels - {ignored})
        if wrong:
            remedy = f'--cfg-options {key}={wrong[0]}' if len(labels) == 1 else ONE_LABEL
            yield Case(key, f'{ignored}, where the maps of the training have {listed(wrong, 5)}', '', remedy)


def _ignoring(run: Run) -> Iterator[tuple[str, int | None]]:
    """Keys and labels of all that ignores one; the ``ignore_index`` of DiceLoss is a channel."""
    for head in heads_of(run):
        yield f'{head.key}.ignore_index', head.ignores
        for key, loss in head.losses:
            for name in ('ignore_index', 'ignore_label'):
                if isinstance(getattr(loss, name, None), int) and bare_type(type(loss)) != 'DiceLoss':
                    yield f'{key}.{name}', getattr(loss, name)


@rule(
    'loss that learns from ignored pixels',
    looks_at='gradients of the losses at pixels of an ignored label that the maps of the training have',
    expected='no gradient there',
    remedy='another loss, or maps without ignored pixels; the DiceLoss of mmseg knows none',
    fatal=False,
    needs='model',
)
def learns_from_ignored(run: Run) -> Iterator[Case]:
    labels = labels_without_class(run)
    for head in heads_of(run):
        for key, loss in head.losses if head.ignores in labels else []:
            gradient = _gradient(loss, head, [[0, 0], [0, head.ignores]])
            if gradient is not None and gradient[..., 1, 1].abs().max() > 0:
                yield Case(key, f'{type(loss).__name__} has a gradient at pixels of {head.ignores}')


@rule(
    'one channel that the loss cannot teach',
    looks_at='gradients of the losses of heads with `out_channels=1`',
    expected='a loss that raises the logit where the label is 1: a softmax over one channel is always 1',
    remedy="loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True), or out_channels=num_classes",
    needs='model',
)
def one_channel(run: Run) -> Iterator[Case]:
    for head in heads_of(run):
        for key, loss in head.losses if getattr(head.module, 'out_channels', 0) == 1 else []:
            zero, one = (_gradient(loss, head, [[label, label]] * 2) for label in (0, 1))
            if zero is None or (one is None and zero.abs().max() > 0):
                continue
            if one is None or zero.sum() - one.sum() <= 0:
                same = one is None or torch.equal(zero, one)
                what = 'does not depend on the label' if same else 'lowers the logit where the label is 1'
                yield Case(key, f'{type(loss).__name__} of one channel {what}')


def _gradient(loss: Any, head: Head, labels: list[list[int | None]]) -> Tensor | None:
    """Gradient (1, C, 2, 2) at some logits, ``None`` of a loss that cannot be asked this way."""
    channels = head.module.out_channels
    logits = torch.linspace(-1, 1, 4 * channels).reshape(1, channels, 2, 2).requires_grad_()
    try:
        with torch.enable_grad():
            value = loss(logits, torch.tensor([labels]), weight=None, ignore_index=head.ignores)
            return torch.autograd.grad(value.sum(), logits)[0]
    except Exception:  # losses of other kinds, such as those of points or of boundaries
        return None


@rule(
    'class weights of another number',
    looks_at='`class_weight` of the losses',
    expected='a weight for each class; MaskFormer and Mask2Former have one more, of no object',
    needs='model',
)
def weights(run: Run) -> Iterator[Case]:
    for head in heads_of(run):
        known = [(key, loss, getattr(head.module, 'out_channels', None)) for key, loss in head.losses]
        if hasattr(head.module, 'loss_cls'):
            known.append((f'{head.key}.loss_cls', head.module.loss_cls, head.module.num_classes + 1))
        for key, loss, number in known:
            given = getattr(loss, 'class_weight', None)
            if isinstance(given, list | tuple) and number is not None and len(given) not in (1, number):
                yield Case(f'{key}.class_weight', f'{len(given)} weights', f'{number}')


@rule(
    'class that is not trained and is evaluated',
    looks_at='`ignore_index` of heads and metrics, and classes whose weight in the loss is 0',
    expected='the same classes in training and evaluation',
    remedy='ignore_index of the metric leaves a class out; reduce_zero_label=True in the data if 0 is no class',
    fatal=False,
    needs='model',
)
def untrained(run: Run) -> Iterator[Case]:
    main, classes = _main_head(run)
    if main is None:
        return
    skipped = _untrained(main, len(classes))
    for split in run.splits:
        for metric, node in counts(run, split, 'IoUMetric') if split.name != 'train' else []:
            for k, key in skipped.items():
                if k != node.get('ignore_index', 255):
                    yield Case(key, f'class {k} ({classes[k]!r}) is never trained on, and {metric} counts it')


def _untrained(head: Head, classes: int) -> dict[int, str]:
    """Classes that a head does not learn, and the keys that say so."""
    found = {k: f'{head.key}.ignore_index' for k in range(classes) if k == head.ignores}
    weights = [(key, getattr(loss, 'class_weight', None) or []) for key, loss in head.losses]
    for k in range(classes):
        if weights and all(k < len(given) and not given[k] for _, given in weights):
            found[k] = f'{weights[0][0]}.class_weight'
    return found


@rule(
    'class that is trained and not evaluated',
    looks_at='`ignore_index` of heads and metrics',
    expected='the same classes in training and evaluation: what is wrong at pixels of this class does not count',
    fatal=False,
    needs='model',
)
def not_evaluated(run: Run) -> Iterator[Case]:
    main, classes = _main_head(run)
    for split in run.splits if main else []:
        for metric, node in counts(run, split, 'IoUMetric') if split.name != 'train' else []:
            k = node.get('ignore_index', 255)
            if main and k in range(len(classes)) and k not in _untrained(main, len(classes)):
                yield Case(f'{metric}.ignore_index', f'class {k} ({classes[k]!r}), which {main.key} is trained on')


@rule(
    'heads that ignore different labels',
    looks_at='`ignore_index` of all heads',
    expected='the same in all heads',
    fatal=False,
    needs='model',
)
def heads_differ(run: Run) -> Iterator[Case]:
    main, _ = _main_head(run)
    for head in heads_of(run):
        if main and head.ignores != main.ignores:
            remedy = f'--cfg-options {head.key}.ignore_index={main.ignores}'
            yield Case(f'{head.key}.ignore_index', f'{head.ignores}, and {main.ignores} in {main.key}', '', remedy)


@rule(
    'padding that is trained on',
    looks_at='`seg_pad_val` of the preprocessor and of the steps of the pipeline, and `ignore_index` of the head',
    expected='what the head ignores',
    fatal=False,
    needs='model',
)
def padding(run: Run) -> Iterator[Case]:
    main, classes = _main_head(run)
    if main is None or main.ignores is None or main.ignores in range(len(classes)):
        return
    for key, value in _paddings(run):
        if value != main.ignores:
            name = f' ({classes[value]!r})' if value in range(len(classes)) else ''
            found = f'{value}{name}, and {main.key} ignores {main.ignores}'
            yield Case(key, found, remedy=f'--cfg-options {key}={main.ignores}')


def _paddings(run: Run) -> Iterator[tuple[str, int]]:
    value = getattr(getattr(run.model, 'data_preprocessor', None), 'seg_pad_val', None)
    if value is not None:
        yield 'model.data_preprocessor.seg_pad_val', value
    for split, node, report, _ in of_maps(run):
        for step in steps(node) if split.name == 'train' else []:
            value = step['pad_val'].get('seg') if isinstance(step.get('pad_val'), dict) else step.get('seg_pad_val')
            if isinstance(value, int):
                yield f'{report.key}.pipeline.{bare_type(step)}', value


def _main_head(run: Run) -> tuple[Head | None, tuple[str, ...]]:
    """The head that predicts, and the classes of the training."""
    heads = [head for head in heads_of(run) if not head.is_auxiliary]
    classes = [report.classes for split, _, report, _ in of_maps(run) if split.name == 'train']
    return (heads[-1], classes[0]) if heads else (None, ())
