"""Detectors by set prediction, ours and others, behind one interface: what ``train_step.py`` times."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

from vitdense.config.load import load_config
from vitdense.models.heads.deformable_transformer import relative_to
from vitdense.models.set_prediction import Predictions

CONFIGS = Path(__file__).parents[1] / 'configs'
CLASSES = 80
Maps = Sequence[Tensor]


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

    def features(self, images: Tensor) -> Maps:
        """The maps of the backbone (B, C, H, W) for images (B, 3, H, W)."""
        return self.model.backbone(images)

    @abstractmethod
    def predict(self, maps: Maps, batch: Batch) -> tuple[Tensor, ...]:
        """Logits (T, B, Q, K) and boxes (T, B, Q, 4) of all layers from these maps."""

    @abstractmethod
    def losses(self, predictions: tuple[Tensor, ...], batch: Batch) -> Tensor:
        """Matching and the sum of all losses."""


class Ours(Detector):
    def predict(self, maps: Maps, batch: Batch) -> tuple[Tensor, ...]:
        maps = self.model.neck(maps) if self.model.with_neck else maps
        return self.model.bbox_head(maps, [sample.metainfo for sample in batch.samples])

    def losses(self, predictions: tuple[Tensor, ...], batch: Batch) -> Tensor:
        head, predictions = self.model.bbox_head, Predictions(*predictions)
        return sum(head.criterion(predictions, head.targets(batch.samples, predictions.logits.shape[2])).values())


class MMDet(Detector):
    """Of mmdet, which has a neck in both; its deformable attention is mmcv's, not ours that stands in for it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        import mmcv.ops.multi_scale_deform_attn as module

        function = module.multi_scale_deformable_attn_pytorch
        module.multi_scale_deformable_attn_pytorch = getattr(function, '__wrapped__', function)

    def predict(self, maps: Maps, batch: Batch) -> tuple[Tensor, ...]:
        hidden = self.model.forward_transformer(self.model.neck(maps), batch.samples)
        return self.model.bbox_head(**{k: v for k, v in hidden.items() if not k.startswith('enc_outputs')})

    def losses(self, predictions: tuple[Tensor, ...], batch: Batch) -> Tensor:
        samples = batch.samples
        truths, metas = [s.gt_instances for s in samples], [s.metainfo for s in samples]
        proposals = () if len(predictions) == 2 and not hasattr(self.model, 'as_two_stage') else (None, None)
        return sum(self.model.bbox_head.loss_by_feat(*predictions, *proposals, truths, metas).values())


class Transformers(Detector):
    """Of transformers; with auxiliary losses its DETR passes the norm of a layer on to the next, so ours differs."""

    def features(self, images: Tensor) -> Maps:
        mask = torch.ones(len(images), *images.shape[2:], dtype=torch.long, device=images.device)
        return [x for x, _ in self.model.model.backbone(images, mask)]

    def predict(self, maps: Maps, batch: Batch) -> tuple[Tensor, ...]:
        masks = [torch.ones(len(x), *x.shape[2:], dtype=torch.bool, device=x.device) for x in maps]
        backbone = self.model.model.backbone
        forward, backbone.forward = backbone.forward, lambda *_: list(zip(maps, masks, strict=True))
        output = self.model.model(batch.images)
        backbone.forward = forward
        return self.heads(output)

    def heads(self, output) -> tuple[Tensor, ...]:
        """Logits and boxes of all layers from the output of the transformer."""
        hidden = output.intermediate_hidden_states
        hidden = output.last_hidden_state[None] if hidden is None else hidden
        return self.model.class_labels_classifier(hidden), self.model.bbox_predictor(hidden).sigmoid()

    def losses(self, predictions: tuple[Tensor, ...], batch: Batch) -> Tensor:
        truths = [dict(class_labels=c, boxes=b) for c, b in zip(batch.labels, batch.boxes, strict=True)]
        logits, boxes = predictions
        device, config = logits.device, self.model.config
        return self.model.loss_function(logits[-1], truths, device, boxes[-1], config, logits, boxes)[0]


class TransformersDeformable(Transformers):
    def heads(self, output) -> tuple[Tensor, ...]:
        layers = output.intermediate_hidden_states.unbind(1)
        references = output.init_reference_points, *output.intermediate_reference_points.unbind(1)
        model = self.model
        logits = [classes(x) for classes, x in zip(model.class_embed, layers, strict=True)]
        boxes = [
            relative_to(r, embed(x)) for r, embed, x in zip(references[:-1], model.bbox_embed, layers, strict=True)
        ]
        return torch.stack(logits), torch.stack(boxes)


class TransformersYOLOS(Transformers):
    def features(self, images: Tensor) -> Maps:
        hidden = self.model.vit(images).last_hidden_state
        return [hidden[:, -self.model.config.num_detection_tokens :]]

    def predict(self, maps: Maps, batch: Batch) -> tuple[Tensor, ...]:
        (tokens,) = maps
        return self.model.class_labels_classifier(tokens)[None], self.model.bbox_predictor(tokens).sigmoid()[None]


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
    peers: dict[str, Callable[[], Detector]]


CASES = {
    'DETR R50': Case(
        'detr/detr_r50_8xb2-150e_coco.py',
        'detr',
        {
            'mmdet': partial(of_mmdet, 'mmdet::detr/detr_r50_8xb2-150e_coco.py'),
            'transformers': partial(
                of_transformers, Transformers, 'Detr', auxiliary_loss=True, attention_dropout=0.1, decoder_layers=6
            ),
        },
    ),
    'Deformable DETR R50': Case(
        'deformable_detr/deformable-detr_r50_8xb4-50e_coco.py',
        'deformable_detr',
        {
            'mmdet': partial(of_mmdet, 'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py'),
            'transformers': partial(of_transformers, TransformersDeformable, 'DeformableDetr', auxiliary_loss=True),
        },
    ),
    'YOLOS-Ti': Case(
        'yolos/yolos-ti_8xb2-300e_coco.py',
        'yolos_detector',
        {'transformers': yolos(192, 3, image_size=(800, 1328), use_mid_position_embeddings=False)},
    ),
    'YOLOS-S': Case('yolos/yolos-s_8xb1-150e_coco.py', 'yolos_detector', {'transformers': yolos(384, 6)}),
}
