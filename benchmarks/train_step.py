"""Times training steps of set prediction, ours and others: ``python benchmarks/train_step.py --out FILE.md``.

Each peer is built first, and ours gets its weights; on the images of the benchmark both must predict the same. Each
round calls every implementation once, so that what else the machine does meets all of them alike. Ratios are those of
the minima over the rounds to the best peer. Memory is the growth at the peak of a call, gradients included.

The parts: ``step`` from images to gradients; ``transformer`` the same from the map of the backbone, with the sum of the
predictions in the place of the losses; ``losses`` matching and losses, and their gradients, from predictions.
"""

import argparse
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from measuring import clock_of, describe, extra_memory, write_markdown
from mmengine.registry import MODELS, init_default_scope
from rich.table import Table
from torch import Tensor, nn

from vitdense.checkpoint.convert import convert
from vitdense.console import CONSOLE
from vitdense.engine.config import load_config
from vitdense.models.set_prediction import Predictions

CONFIGS = Path(__file__).parents[1] / 'configs'
PACKAGES = ('vitdense', 'torch', 'transformers', 'onedl-mmdetection')
HEADER = ('model', 'part', 'implementation', 'minimum, s', 'times best peer', 'memory, MB', 'times least peer')
CLASSES = 80


class Batch(NamedTuple):
    """Images (B, 3, H, W) and, for each, labels (G,) and boxes (G, 4), cxcywh."""

    images: Tensor
    labels: list[Tensor]
    boxes: list[Tensor]

    @classmethod
    def random(cls, count: int, hw: tuple[int, int], objects: int, device: str) -> 'Batch':
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(count, 3, *hw, generator=generator)
        labels = torch.randint(CLASSES, (count, objects), generator=generator)
        centres, sizes = torch.rand(2, count, objects, 2, generator=generator)
        boxes = torch.cat([0.25 + centres / 2, 0.05 + sizes / 4], dim=2)
        return cls(images.to(device), list(labels.to(device)), list(boxes.to(device)))

    @property
    def samples(self) -> list:
        """The same as mmdet's data samples."""
        from mmdet.structures import DetDataSample
        from mmengine.structures import InstanceData

        height, width = hw = tuple(self.images.shape[2:])
        scale = self.images.new_tensor([width, height, width, height])
        samples = []
        for labels, (centre, size) in zip(self.labels, (boxes.split(2, 1) for boxes in self.boxes), strict=True):
            corners = torch.cat([centre - size / 2, centre + size / 2], dim=1) * scale
            sample = DetDataSample(metainfo=dict(img_shape=hw, batch_input_shape=hw, scale_factor=(1.0, 1.0)))
            sample.gt_instances = InstanceData(labels=labels, bboxes=corners)
            samples.append(sample)
        return samples


class Detector(nn.Module):
    """An implementation: how its steps are made."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def features(self, images: Tensor) -> Tensor:
        """The last map of the backbone (B, C, H, W) for images (B, 3, H, W)."""
        return self.model.backbone(images)[-1]

    @abstractmethod
    def predict(self, feature: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """Logits (T, B, Q, K) and boxes (T, B, Q, 4) of all layers from that map (B, C, H, W)."""

    @abstractmethod
    def losses(self, predictions: tuple[Tensor, ...], batch: Batch) -> Tensor:
        """Matching and the sum of all losses."""


class Ours(Detector):
    def predict(self, feature: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        return self.model.bbox_head([feature], [sample.metainfo for sample in batch.samples])

    def losses(self, predictions: tuple[Tensor, ...], batch: Batch) -> Tensor:
        head, predictions = self.model.bbox_head, Predictions(*predictions)
        return sum(head.criterion(predictions, head.targets(batch.samples, predictions.logits.shape[2])).values())


class MMDet(Detector):
    def predict(self, feature: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        hidden = self.model.forward_transformer(self.model.neck([feature]), batch.samples)
        return self.model.bbox_head(**hidden)

    def losses(self, predictions: tuple[Tensor, ...], batch: Batch) -> Tensor:
        samples = batch.samples
        truths, metas = [s.gt_instances for s in samples], [s.metainfo for s in samples]
        return sum(self.model.bbox_head.loss_by_feat(*predictions, truths, metas).values())


class Transformers(Detector):
    """Of transformers; with auxiliary losses its DETR passes the norm of a layer on to the next, so ours differs."""

    def features(self, images: Tensor) -> Tensor:
        mask = torch.ones(len(images), *images.shape[2:], dtype=torch.long, device=images.device)
        return self.model.model.backbone(images, mask)[-1][0]

    def predict(self, feature: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        mask = torch.ones(len(feature), *feature.shape[2:], dtype=torch.bool, device=feature.device)
        backbone, self.model.model.backbone.forward = self.model.model.backbone.forward, lambda *_: [(feature, mask)]
        output = self.model.model(batch.images)
        self.model.model.backbone.forward = backbone
        hidden = output.intermediate_hidden_states
        hidden = output.last_hidden_state[None] if hidden is None else hidden
        return self.model.class_labels_classifier(hidden), self.model.bbox_predictor(hidden).sigmoid()

    def losses(self, predictions: tuple[Tensor, ...], batch: Batch) -> Tensor:
        truths = [dict(class_labels=c, boxes=b) for c, b in zip(batch.labels, batch.boxes, strict=True)]
        logits, boxes = predictions
        device, config = logits.device, self.model.config
        return self.model.loss_function(logits[-1], truths, device, boxes[-1], config, logits, boxes)[0]


class TransformersYOLOS(Transformers):
    def features(self, images: Tensor) -> Tensor:
        hidden = self.model.vit(images).last_hidden_state
        return hidden[:, -self.model.config.num_detection_tokens :]

    def predict(self, feature: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        return self.model.class_labels_classifier(feature)[None], self.model.bbox_predictor(feature).sigmoid()[None]


def ours(leaf: str) -> Ours:
    cfg = load_config(str(CONFIGS / leaf))
    cfg.model.backbone.pop('init_cfg', None)
    cfg.model.bbox_head.num_classes = CLASSES
    init_default_scope('mmdet')
    return Ours(MODELS.build(cfg.model))


def of_mmdet(config: str) -> MMDet:
    cfg = load_config(config)
    cfg.model.backbone.init_cfg = None
    init_default_scope('mmdet')
    return MMDet(MODELS.build(cfg.model))


def of_transformers(adapter: type[Transformers], name: str, **config) -> Transformers:
    import transformers

    config = getattr(transformers, f'{name}Config')(num_labels=CLASSES, **config)
    return adapter(getattr(transformers, f'{name}ForObjectDetection')(config))


def yolos(width: int, heads: int, **config) -> Callable[[], Transformers]:
    sizes = dict(hidden_size=width, intermediate_size=4 * width, num_attention_heads=heads, layer_norm_eps=1e-6)
    return partial(of_transformers, TransformersYOLOS, 'Yolos', **sizes, **config)


class Case(NamedTuple):
    """A model: our config, the layout of its weights, and the peers."""

    config: str
    family: str
    parts: tuple[str, ...]
    peers: dict[str, Callable[[], Detector]]


CASES = {
    'DETR R50': Case(
        'detr/detr_r50_8xb2-150e_coco.py',
        'detr',
        ('step', 'transformer', 'losses'),
        {
            'mmdet': partial(of_mmdet, 'mmdet::detr/detr_r50_8xb2-150e_coco.py'),
            'transformers': partial(
                of_transformers, Transformers, 'Detr', auxiliary_loss=True, attention_dropout=0.1, decoder_layers=6
            ),
        },
    ),
    'YOLOS-Ti': Case(
        'yolos/yolos-ti_8xb2-300e_coco.py',
        'yolos_detector',
        ('step',),
        {'transformers': yolos(192, 3, image_size=(800, 1328), use_mid_position_embeddings=False)},
    ),
    'YOLOS-S': Case('yolos/yolos-s_8xb1-150e_coco.py', 'yolos_detector', ('step',), {'transformers': yolos(384, 6)}),
}


def run_step(detector: Detector, batch: Batch) -> None:
    detector.losses(detector.predict(detector.features(batch.images), batch), batch).backward()
    detector.zero_grad(set_to_none=True)


def run_transformer(detector: Detector, feature: Tensor, batch: Batch) -> None:
    sum(x.sum() for x in detector.predict(feature, batch)).backward()
    detector.zero_grad(set_to_none=True)


def run_losses(detector: Detector, predictions: tuple[Tensor, ...], batch: Batch) -> None:
    torch.autograd.grad(detector.losses(predictions, batch), predictions)


def calls_of(detector: Detector, parts: tuple[str, ...], batch: Batch) -> dict[str, Callable[[], None]]:
    """What to time of a detector in training mode, by part."""
    detector.train()
    with torch.no_grad():
        feature = detector.features(batch.images)
        predictions = tuple(p.requires_grad_() for p in detector.predict(feature, batch))
    calls = {
        'step': partial(run_step, detector, batch),
        'transformer': partial(run_transformer, detector, feature, batch),
        'losses': partial(run_losses, detector, predictions, batch),
    }
    return {part: calls[part] for part in parts}


def build(name: str, batch: Batch, device: str, notes: list[str]) -> dict[str, Detector]:
    """Ours and the peers of a model, by name; what cannot be built or differs is told in ``notes``."""
    case = CASES[name]
    detectors = {'vitdense': ours(case.config).to(device)}
    for peer, make in case.peers.items():
        try:
            detectors[peer] = make().to(device)
        except (ImportError, RuntimeError, ValueError, TypeError) as error:
            notes.append(f'Not measured: {name} of {peer}: {str(error).strip().splitlines()[0]}')
            continue
        difference = compare(detectors['vitdense'], detectors[peer], case.family, batch)
        notes.append(f'{name}: predictions of {peer} with the same weights differ by {difference:.1g}')
    return detectors


def compare(mine: Ours, peer: Detector, family: str, batch: Batch) -> float:
    """Give ours the weights of ``peer``; the largest difference of what the first and last layer predict."""
    state, _ = convert(peer.model.state_dict(), family)
    mine.model.load_state_dict(state, strict=False)
    predictions = []
    for detector in (mine, peer):
        detector.eval()
        with torch.no_grad():
            predictions.append(detector.predict(detector.features(batch.images), batch))
    return max((a[0] - b[0]).abs().max().item() for a, b in zip(*predictions, strict=True))


def measure(args: argparse.Namespace) -> tuple[list[list[tuple[str, ...]]], list[str]]:
    """Rows of the table by model and part, and notes."""
    clock, cases, notes = clock_of(args.device), [], []
    batch = Batch.random(2, (512, 672), 15, args.device)
    for name in args.models:
        detectors = build(name, batch, args.device, notes)
        calls = {peer: calls_of(detector, CASES[name].parts, batch) for peer, detector in detectors.items()}
        for part in CASES[name].parts:
            rounds = [{peer: clock(call[part]) / 1e3 for peer, call in calls.items()} for _ in range(args.repeat)]
            times = {peer: min(seconds[peer] for seconds in rounds) for peer in calls}
            memory = {peer: extra_memory(call[part], args.device) for peer, call in calls.items()}
            fastest, leanest = (min(x[peer] for peer in x if peer != 'vitdense') for x in (times, memory))
            cases.append([])
            for peer, time in times.items():
                cells = f'{time:.3f}', f'{time / fastest:.2f}', f'{memory[peer]:.0f}', f'{memory[peer] / leanest:.2f}'
                cases[-1].append((name, part, peer, *cells))
    return cases, notes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--models', nargs='+', choices=CASES, default=list(CASES))
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help='of PyTorch, on the CPU')
    parser.add_argument('--repeat', type=int, default=3, help='rounds')
    parser.add_argument('--out', type=Path, help='Markdown file to write')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cases, notes = measure(args)
    table = Table(*HEADER)
    for rows in cases:
        for row in rows:
            table.add_row(*row)
        table.add_section()
    notes = [*describe(args.device, PACKAGES), 'Two images of 512 x 672 with 15 objects each.', *notes]
    CONSOLE.print(table, *notes, sep='\n')
    if args.out:
        write_markdown(args.out, HEADER, [row for rows in cases for row in rows], notes)


if __name__ == '__main__':
    main()
