"""The metrics that a run is told to go by: `save_best` and `monitor`."""

from collections.abc import Iterator

from mmengine.config import ConfigDict

from vitdense.evaluation.main_metric import direction
from vitdense.models.tasks import has_masks
from vitdense.names import listed, nearest
from vitdense.registry import bare_type

from .forms import family
from .rules import Case, rule
from .run import Run

COCO_ITEMS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
RECALLS = ('AR@100', 'AR@300', 'AR@1000', 'AR_s@1000', 'AR_m@1000', 'AR_l@1000')
LVIS_ITEMS = ('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl', 'APr', 'APc', 'APf')
LVIS_RECALLS = ('AR@300', 'ARs@300', 'ARm@300', 'ARl@300')
OF_MAPS = {'mIoU': ('mIoU', 'mAcc'), 'mDice': ('mDice', 'mAcc'), 'mFscore': ('mFscore', 'mPrecision', 'mRecall')}


@rule(
    'metric that the evaluators do not give',
    looks_at='`save_best` of the checkpoint hook and `monitor` of the early stopping hook, where all of '
    '`val_evaluator` are CocoMetric, LVISMetric, OpenImagesMetric, VOCMetric or IoUMetric',
    expected='a key of the validation, with its prefix',
)
def unknown_metric(run: Run) -> Iterator[Case]:
    keys = known_keys(run)
    for where, key in chosen_metrics(run):
        if keys and key not in keys and not key.endswith('_precision'):  # classwise=True has one of each class
            same = [other for other in keys if _name(other) == _name(key)]
            first = (same or nearest(key, keys))[0]
            yield Case(where, repr(key), f'one of {listed(keys, 12)}', f'--cfg-options {where}={first}')


@rule(
    'metric of unknown direction',
    looks_at='`save_best` and `rule` of the checkpoint hook, `monitor` and `rule` of the early stopping hook',
    expected="rule='greater' or rule='less' for a metric that vitdense and mmengine do not know",
)
def unknown_direction(run: Run) -> Iterator[Case]:
    if not run.trains or not run.split('val').loader:
        return
    for key, hook in watching_hooks(run):
        if hook.get('rule') or hook.get('greater_keys') or hook.get('less_keys'):
            continue
        for where, metric in _chosen(key, hook):
            if direction(metric) is None and not _known_to_mmengine(metric):
                yield Case(where, repr(metric), remedy=f'--cfg-options {key}.rule=greater (or less)')


@rule(
    'metrics of one name',
    looks_at='CocoMetric and IoUMetric in each evaluator, and their `prefix`',
    expected='another name for each metric: mmengine fails at the end of the first evaluation',
    remedy="one metric with all of it, iou_metrics=['mIoU', 'mDice'], or another prefix for each",
)
def same_names(run: Run) -> Iterator[Case]:
    for split in run.splits:
        owners: dict[str, str] = {}
        for where, node in split.metrics if not split.separate else ():
            keys = _keys_of(run, node) or []
            again = [key for key in keys if key in owners]
            if again:
                yield Case(where, f'{listed(again, 3)}, as {owners[again[0]]} has')
            owners.update({key: where for key in keys if key not in owners})


@rule(
    'masks of a model without masks',
    looks_at='`metric` of CocoMetric and LVISMetric, and the modules of a detector of mmdet or vitdense: one that '
    'predicts masks has some that are named for them',
    expected="'bbox' alone, or a model with a mask head",
    needs='model',
)
def masks_of_boxes(run: Run) -> Iterator[Case]:
    model = run.model
    if model is None or not type(model).__module__.startswith(('mmdet.', 'vitdense.')):
        return
    if has_masks(model):
        return
    for split in run.splits:
        for where, node in split.metrics:
            if run.is_a(node, 'CocoMetric', 'LVISMetric') and 'segm' in _listed(node.get('metric')):
                remedy = f'--cfg-options {where}.metric=bbox'
                yield Case(f'{where}.metric', f"'segm', of a {type(model).__name__} without masks", remedy=remedy)


@rule(
    'metric of another kind of model',
    looks_at='the packages of the metrics and of the model',
    expected='metrics of the package of the model: those of mmdet take boxes and masks, those of mmseg semantic maps',
)
def other_package(run: Run) -> Iterator[Case]:
    package = family(run, run.model_cfg)
    for split in run.splits if package else []:
        for where, node in split.metrics:
            other = family(run, node)
            if other and other != package:
                usual = 'CocoMetric' if package == 'mmdet' else 'IoUMetric'
                found = f'{bare_type(node)} of {other}, and {bare_type(run.model_cfg)} is of {package}'
                yield Case(where, found, remedy=f"such as dict(type='{usual}')")


def watching_hooks(run: Run) -> Iterator[tuple[str, ConfigDict]]:
    """The hooks that go by a metric, with their keys."""
    for key, hook in run.hooks:
        if run.is_a(hook, 'CheckpointHook', 'EarlyStoppingHook'):
            yield key, hook


def chosen_metrics(run: Run) -> Iterator[tuple[str, str]]:
    """Keys of the config that name a metric, and the metrics."""
    if run.trains and run.split('val').loader:
        for key, hook in watching_hooks(run):
            yield from _chosen(key, hook)


def known_keys(run: Run) -> list[str]:
    """Keys of the metrics of a validation; none where one of the evaluators is of a class whose keys are not known."""
    keys: list[str] = []
    val = run.split('val')
    for _, node in val.metrics if not val.separate else ():
        of_one = _keys_of(run, node)
        if of_one is None:
            return []
        keys += of_one
    return list(dict.fromkeys(keys))


def _keys_of(run: Run, node: ConfigDict) -> list[str] | None:
    kind = getattr(run.kind(node), '__name__', '')
    if node.get('format_only'):
        return None
    prefix, names = node.get('prefix'), []
    if kind in ('CocoMetric', 'LVISMetric'):
        is_lvis = kind == 'LVISMetric'
        prefix, items = prefix or ('lvis' if is_lvis else 'coco'), node.get('metric_items')
        for metric in _listed(node.get('metric', 'bbox')):
            if metric == 'proposal_fast':
                names += [f'AR@{number}' for number in node.get('proposal_nums', (100, 300, 1000))]
            elif metric == 'proposal':
                names += items or (LVIS_RECALLS if is_lvis else RECALLS)
            else:
                names += [f'{metric}_{item}' for item in items or (LVIS_ITEMS if is_lvis else COCO_ITEMS)]
    elif kind == 'OpenImagesMetric' or (kind == 'VOCMetric' and node.get('metric', 'mAP') == 'mAP'):
        prefix = prefix or ('openimages' if kind == 'OpenImagesMetric' else 'pascal_voc')
        names = ['mAP', *(f'AP{int(threshold * 100):02d}' for threshold in _listed(node.get('iou_thrs', 0.5)))]
    elif kind == 'IoUMetric':
        metrics = _listed(node.get('iou_metrics', 'mIoU'))
        if not all(metric in OF_MAPS for metric in metrics):
            return None
        names = ['aAcc', *(name for metric in metrics for name in OF_MAPS[metric])]
    else:
        return None
    return [f'{prefix}/{name}' if prefix else name for name in names]


def _chosen(key: str, hook: ConfigDict) -> list[tuple[str, str]]:
    name = 'monitor' if 'monitor' in hook else 'save_best'
    return [
        (f'{key}.{name}', metric) for metric in _listed(hook.get(name)) if isinstance(metric, str) and metric != 'auto'
    ]


def _name(key: str) -> str:
    return key.rpartition('/')[2].lower()


def _listed(value: object) -> list:
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def _known_to_mmengine(metric: str) -> bool:
    from mmengine.hooks import CheckpointHook

    known = CheckpointHook._default_greater_keys + CheckpointHook._default_less_keys
    return any(name.lower() in metric.lower() for name in known)
