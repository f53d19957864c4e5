"""Official ImageNet weights: URL of each file by the family of its model and the name that a config gives."""

_PVT = 'https://github.com/whai362/PVT/releases/download/v2'
_SWIN = 'https://github.com/SwinTransformer/storage/releases/download'
_DEIT, _MAE = 'https://dl.fbaipublicfiles.com/deit', 'https://dl.fbaipublicfiles.com/mae/pretrain'
_DETECTRON2 = 'https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained/MAE'
_TIMM = 'https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-vitjx'
_HUB = 'https://huggingface.co/timm'

RELEASES_OF: dict[str, dict[str, str]] = {
    'pvt': {f'pvt_{arch}': f'{_PVT}/pvt_{arch}.pth' for arch in ('tiny', 'small', 'medium', 'large')},
    'pvt_v2': {f'pvt_v2_{arch}': f'{_PVT}/pvt_v2_{arch}.pth' for arch in ('b0', 'b1', 'b2', 'b2_li', 'b3', 'b4', 'b5')},
    'vit': {
        'deit_tiny': f'{_DEIT}/deit_tiny_patch16_224-a1311bcf.pth',
        'deit_small': f'{_DEIT}/deit_small_patch16_224-cd65a155.pth',
        'deit_base': f'{_DEIT}/deit_base_patch16_224-b5f2ef4d.pth',
        'deit_base_384': f'{_DEIT}/deit_base_patch16_384-8de9b5d1.pth',
        'deit_tiny_distilled': f'{_DEIT}/deit_tiny_distilled_patch16_224-b40b3cf7.pth',
        'deit_small_distilled': f'{_DEIT}/deit_small_distilled_patch16_224-649709d9.pth',
        'deit_base_distilled': f'{_DEIT}/deit_base_distilled_patch16_224-df68dfff.pth',
        'deit_base_distilled_384': f'{_DEIT}/deit_base_distilled_patch16_384-d0272ac0.pth',
        **{f'mae_vit_{arch}': f'{_MAE}/mae_pretrain_vit_{arch}.pth' for arch in ('base', 'large', 'huge')},
        'mae_vit_huge_p14to16': f'{_DETECTRON2}/mae_pretrain_vit_huge_p14to16.pth',  # patches resized for ViTDet
        'vit_base_orig': f'{_TIMM}/jx_vit_base_p16_224-80ecf9dd.pth',
        'vit_base_orig_384': f'{_TIMM}/jx_vit_base_p16_384-83fb41ba.pth',
        'vit_large_orig_384': f'{_TIMM}/jx_vit_large_p16_384-b3be5167.pth',
        **{
            f'vit_{arch}_augreg': f'{_HUB}/vit_{arch}_patch16_224.augreg_in21k/resolve/main/model.safetensors'
            for arch in ('tiny', 'small', 'base', 'large')
        },
    },
    'hybrid_vit': {'vit_base_r50_s16': f'{_TIMM}/jx_vit_base_resnet50_224_in21k-6f7c7740.pth'},
    'swin': {
        'swin_tiny': f'{_SWIN}/v1.0.0/swin_tiny_patch4_window7_224.pth',
        'swin_small': f'{_SWIN}/v1.0.0/swin_small_patch4_window7_224.pth',
        'swin_base': f'{_SWIN}/v1.0.0/swin_base_patch4_window7_224.pth',
        'swin_base_22k': f'{_SWIN}/v1.0.0/swin_base_patch4_window7_224_22k.pth',
        'swin_base_w12_22k': f'{_SWIN}/v1.0.0/swin_base_patch4_window12_384_22k.pth',
        'swin_large': f'{_SWIN}/v1.0.0/swin_large_patch4_window7_224_22k.pth',
        'swin_large_w12': f'{_SWIN}/v1.0.0/swin_large_patch4_window12_384_22k.pth',
    },
    'swin_v2': {
        **{
            f'swin_v2_{arch}{suffix}': f'{_SWIN}/v2.0.0/swinv2_{arch}_patch4_window{window}_256.pth'
            for arch in ('tiny', 'small', 'base')
            for suffix, window in (('', 8), ('_w16', 16))
        },
        'swin_v2_large': f'{_SWIN}/v2.0.0/swinv2_large_patch4_window12to16_192to256_22kto1k_ft.pth',
    },
}
RELEASES_OF['vit_adapter'] = {  # what it is trained from
    f'vit_adapter_{arch}': RELEASES_OF['vit'][f'deit_{arch}'] for arch in ('tiny', 'small', 'base')
}

RELEASES: dict[str, str] = {name: url for releases in RELEASES_OF.values() for name, url in releases.items()}
"""URL by name."""
