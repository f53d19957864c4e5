"""The names that ``--backbone`` takes, known without importing a backbone: a test compares them with ``BACKBONES``."""

from vitdense.names import unknown

NAMES = (
    *('pvt_tiny', 'pvt_small', 'pvt_medium', 'pvt_large'),
    *('pvt_v2_b0', 'pvt_v2_b1', 'pvt_v2_b2', 'pvt_v2_b2_li', 'pvt_v2_b3', 'pvt_v2_b4', 'pvt_v2_b5'),
    *('swin_tiny', 'swin_small', 'swin_base', 'swin_base_22k', 'swin_base_w12_22k', 'swin_large', 'swin_large_w12'),
    *('swin_v2_tiny', 'swin_v2_small', 'swin_v2_base', 'swin_v2_large'),
    *('swin_v2_tiny_w16', 'swin_v2_small_w16', 'swin_v2_base_w16'),
    *('vit_tiny', 'vit_small', 'vit_base', 'vit_large', 'vit_huge'),
    *('vit_base_orig', 'vit_base_orig_384', 'vit_large_orig_384'),
    *('vit_tiny_augreg', 'vit_small_augreg', 'vit_base_augreg', 'vit_large_augreg'),
    *('deit_tiny', 'deit_small', 'deit_base', 'deit_base_384'),
    *('deit_tiny_distilled', 'deit_small_distilled', 'deit_base_distilled', 'deit_base_distilled_384'),
    *('mae_vit_base', 'mae_vit_large', 'mae_vit_huge', 'mae_vit_huge_p14to16'),
    *('vit_adapter_tiny', 'vit_adapter_small', 'vit_adapter_base', 'vit_adapter_large'),
)


def check_name(name: str) -> None:
    """Look whether there is a backbone of this ``name``.

    Raises:
        ValueError: there is none; the message lists those that there are, nearest first.
    """
    if name not in NAMES:
        raise ValueError(unknown('--backbone', name, NAMES))
