"""What the tests of detectors share: models of configs, random weights, padded batches, and copies to the host."""

import torch
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

from support.configs import model_of


def randomize_(module: nn.Module) -> nn.Module:
    """Weights that make every path count, and statistics of batch norm that are not those of a new one."""
    generator = torch.Generator().manual_seed(0)
    for name, value in module.state_dict().items():
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith('running_var'):
            value.copy_(1 + 0.2 * noise.abs())
        elif value.ndim == 1:
            value.add_(0.05 * noise)
        elif value.ndim > 1:
            value.copy_(noise / value[0].numel() ** 0.5)
    return module.eval()


def build(leaf: str, **changes) -> nn.Module:
    """The detector of a config without pretrained weights; ``changes`` of its head."""
    model = model_of(leaf)
    model.bbox_head.update(changes)
    torch.manual_seed(0)
    return MODELS.build(model).eval()


def on_pvt(out_indices: tuple[int, ...], **parts) -> nn.Module:
    """A detector over a PVTv2-b0 of one block a stage, with random weights; ``parts`` are its neck and its head."""
    init_default_scope('mmdet')
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type='SingleStageDetector',
            data_preprocessor=dict(type='DetDataPreprocessor'),
            backbone=dict(type='vitdense.PVTv2', arch='b0', depths=(1, 1, 1, 1), out_indices=out_indices),
            **parts,
        )
    )


def metas(sizes) -> list[dict]:
    """Of images that are padded to the largest height and width of ``sizes``."""
    batch = tuple(max(side) for side in zip(*sizes, strict=True))
    return [dict(img_shape=size, batch_input_shape=batch, scale_factor=(1.0, 1.0)) for size in sizes]


def padded(sizes) -> Tensor:
    """Random images (B, 3, H, W) of ``sizes``, zero beyond them."""
    generator = torch.Generator().manual_seed(1)
    batch = torch.zeros(len(sizes), 3, *metas(sizes)[0]['batch_input_shape'])
    for image, (height, width) in zip(batch, sizes, strict=True):
        image[:, :height, :width] = torch.randn(3, height, width, generator=generator)
    return batch


def copies_to_host(monkeypatch) -> list[str]:
    """A list that grows by the name of each method of a tensor that a GPU would have to be waited for."""
    copies = []
    for name in ('cpu', 'item', 'tolist', '__bool__', '__float__', '__int__', 'nonzero'):
        method = getattr(torch.Tensor, name)

        def counted(self, *args, method=method, name=name, **kwargs):
            copies.append(name)
            return method(self, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, counted)
    return copies
