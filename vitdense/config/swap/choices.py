"""The backbones that ``--backbone`` takes, and how each was published to be trained."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vitdense.checkpoint.layouts import RELEASES_OF, family_of
from vitdense.models import backbones
from vitdense.models.backbones import Backbone

IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
HALVES = dict(mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True)

WEIGHT_DECAY = {'pvt': 1e-4, 'pvt_v2': 1e-4, 'swin': 0.05, 'swin_v2': 0.05, 'vit': 0.1, 'vit_adapter': 0.05}
"""Of AdamW with a learning rate of 1e-4, as published for detection: PVT, Swin, ViTDet and ViT-Adapter."""

LAYER_DECAY = {12: 0.7, 24: 0.8, 32: 0.9}
"""Published for ViTDet, by the number of blocks."""


@dataclass(frozen=True)
class Choice:
    """What a name that ``--backbone`` takes stands for.

    Attributes:
        backbone: the class.
        arguments: what the class is built with.
        release: name of the official weights, None where there are none.
    """

    backbone: type[Backbone]
    arguments: dict
    release: str | None

    @property
    def normalisation(self) -> dict:
        """Mean and std of the images that the weights were trained with: Google's ViTs had values from -1 to 1."""
        return HALVES if self.release and self.release.endswith(('augreg', 'orig', 'orig_384')) else IMAGENET


WORDS: dict[str, dict[str, Any]] = {
    'deit': dict(pos_resize='bicubic'),
    'mae': dict(pos_resize='bicubic'),
    'distilled': dict(dist_token=True),
    '384': dict(img_size=384),
    'w12': dict(window_size=12),
    'w16': dict(window_size=16, pretrained_window_sizes=(0, 0, 0, 8)),
    'mae_vit_huge': dict(patch_size=14),
}
"""What the name of a release, or a word in it, says about the arguments of its backbone."""


NO_CHOICES = ('Backbone', 'HybridViT', 'YOLOS')
"""The contract, the backbone whose maps start at stride 2, and one that returns tokens."""


def _choices() -> Iterator[tuple[str, Choice]]:
    """The rows of all classes, and the releases that are not a row as it is."""
    for backbone in (getattr(backbones, name) for name in backbones.__all__ if name not in NO_CHOICES):
        family = family_of(backbone)
        releases = RELEASES_OF[family]
        for arch in backbone.ARCHS:
            name = f'{family}_{arch}'
            release = next((known for known in (name, f'{name}_augreg') if known in releases), None)
            yield name, Choice(backbone, dict(arch=arch), release)
        for name in releases:
            if name.removeprefix(f'{family}_') in backbone.ARCHS:
                continue
            words = name.split('_')
            arguments: dict[str, Any] = dict(arch=next(word for word in words if word in backbone.ARCHS))
            for word in (name, *words):
                arguments.update(WORDS.get(word, {}))
            yield name, Choice(backbone, arguments, name)


BACKBONES: dict[str, Choice] = dict(_choices())
"""Names that ``--backbone`` takes."""
