# The backbone of ViTDet: ViT-B with windows in two of three blocks, from the weights of MAE.
vitdet = dict(
    type='vitdense.ViT',
    arch='base',
    class_token=False,
    pos_resize='bicubic',
    rel_pos='decomposed',
    rel_pos_size=1024,
    window_size=14,
    global_blocks=(2, 5, 8, 11),
    drop_path_rate=0.1,
    init_cfg=dict(type='vitdense.Pretrained', checkpoint='mae_vit_base'),
)
