"""Layer decay and merged parameter groups: against mmseg's constructor, mmengine's, and one group per parameter."""

import copy

import mmseg.engine  # noqa: F401, registers its constructor
import pytest
import torch
from mmengine.model import BaseModel
from mmengine.optim import LinearLR, MultiStepLR, OptimWrapper, build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import nn

from vitdense.models.backbones import PVT, Backbone, Swin, SwinV2, ViT

LR, DECAY = 1e-3, 0.05


class BEiTStub(Backbone):
    """A backbone that mmseg's constructor knows as well: it goes by the class name and by ``layers.N``."""

    def __init__(self, depth: int = 3, frozen_stages: int = -1) -> None:
        super().__init__((1,) * depth, (4,) * depth, (16,) * depth, (depth - 1,), frozen_stages)
        self.cls_token = nn.Parameter(torch.randn(1, 1, 4))
        self.pos_embed = nn.Parameter(torch.randn(1, 9, 4))
        self.patch_embed = nn.Conv2d(3, 4, 16, 16)
        self.layers = nn.ModuleList(nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4)) for _ in range(depth))
        for layer in self.layers:
            layer.gamma = nn.Parameter(torch.ones(4))
            layer.relative_position_bias_table = nn.Parameter(torch.randn(9, 2))
        self.freeze()

    def layer_id(self, name):
        return int(name.split('.')[1]) + 1 if name.startswith('layers.') else 0

    def forward(self, image):
        x = self.patch_embed(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed[:, : x.shape[1] + 1]
        for layer in self.layers:
            x = x + layer.gamma * layer(x) + layer.relative_position_bias_table.mean()
        return (x,)


class Model(BaseModel):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.conv = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.norm = nn.BatchNorm2d(4)
        self.query = nn.Embedding(5, 4)
        self.decoder = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.decoder[1].weight = self.decoder[0].weight

    def forward(self, image):
        x = self.backbone(image)[-1][:, :4]
        x = self.norm(self.conv(x.mT.unflatten(2, (2, 2)))).flatten(2).mT + self.query.weight[:4]
        return self.decoder[1](self.decoder[0](x).tanh()).square().sum()


def build(model: nn.Module, optimizer: dict | None = None, **paramwise) -> OptimWrapper:
    optimizer = dict(type='AdamW', lr=LR, weight_decay=DECAY) if optimizer is None else optimizer
    constructor = 'vitdense.LayerDecayOptimWrapperConstructor'
    return build_optim_wrapper(model, dict(optimizer=optimizer, constructor=constructor, paramwise_cfg=paramwise))


def by_name(model: nn.Module, wrapper: OptimWrapper) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of every parameter, which must be in one group only."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = [(names[id(p)], (g['lr'], g['weight_decay'])) for g in wrapper.optimizer.param_groups for p in g['params']]
    assert len(found) == len(dict(found))
    return dict(found)


def without(found: dict, *parts: str) -> dict:
    return {name: value for name, value in found.items() if not any(part in name for part in parts)}


def test_rates_and_decays_by_hand():
    found = by_name(model := Model(BEiTStub(depth=3)), build(model, decay_rate=0.5))
    rates = {name: lr / LR for name, (lr, _) in found.items()}
    assert {rates[f'backbone.{name}'] for name in ('cls_token', 'pos_embed', 'patch_embed.weight')} == {0.5**4}
    for i in range(3):
        assert {rate for name, rate in rates.items() if f'layers.{i}.' in name} == {0.5 ** (3 - i)}
    assert {rate for name, rate in rates.items() if not name.startswith('backbone.')} == {1.0}
    decayed = {name for name, (_, decay) in found.items() if decay == DECAY}
    assert decayed == {
        'backbone.patch_embed.weight',
        *(f'backbone.layers.{i}.1.weight' for i in range(3)),
        'conv.weight',
        'query.weight',
        'decoder.0.weight',
    }
    assert all(decay in (0, DECAY) for _, decay in found.values())


@pytest.mark.parametrize('depth', [1, 3])
def test_agrees_with_mmseg_where_that_knows_the_backbone(depth):
    init_default_scope('mmseg')
    model = Model(BEiTStub(depth))
    cfg = dict(
        optimizer=dict(type='AdamW', lr=LR, weight_decay=DECAY),
        constructor='mmseg.LearningRateDecayOptimizerConstructor',
        paramwise_cfg=dict(num_layers=depth, decay_rate=0.65, decay_type='layer_wise_vit'),
    )
    theirs, ours = by_name(model, build_optim_wrapper(model, cfg)), by_name(model, build(model, decay_rate=0.65))
    assert {name: lr for name, (lr, _) in ours.items()} == pytest.approx({n: lr for n, (lr, _) in theirs.items()})
    tables = ('cls_token', 'pos_embed', 'bias_table')  # which it decays: it looks for them without "backbone."
    assert {n: d for n, (_, d) in without(ours, *tables).items()} == {
        n: d for n, (_, d) in without(theirs, *tables).items()
    }


@pytest.mark.parametrize(
    'rules',
    [
        dict(norm_decay_mult=0.1, bias_decay_mult=0.2, flat_decay_mult=0.3, dwconv_decay_mult=0.4, bias_lr_mult=2.0),
        dict(norm_decay_mult=0.0, flat_decay_mult=1.0, bias_decay_mult=1.0),
        dict(
            norm_decay_mult=0.0,
            bias_decay_mult=0.0,
            flat_decay_mult=0.0,
            custom_keys={
                'backbone': dict(lr_mult=0.1, decay_mult=1.0),
                'layers.1': dict(lr_mult=0.5, decay_mult=0.5),
                'layers.2': dict(lr_mult=0.7, decay_mult=0.0),
                'bias': dict(lr_mult=0.2, decay_mult=0.2),
                'norm': dict(lr_mult=0.3, decay_mult=0.3),
            },
        ),
    ],
)
def test_settings_mean_what_they_mean_to_mmengine(rules):
    model = Model(BEiTStub())
    cfg = dict(optimizer=dict(type='AdamW', lr=LR, weight_decay=DECAY))
    theirs = by_name(model, build_optim_wrapper(model, {**cfg, 'paramwise_cfg': {**rules, 'bypass_duplicate': True}}))
    ours = by_name(model, build(model, **rules))
    if 'custom_keys' not in rules:  # mmengine has no rule for tables
        theirs, ours = (without(found, 'token', 'pos_embed', 'table') for found in (theirs, ours))
    assert ours == theirs


def test_a_custom_key_leaves_alone_what_it_does_not_state():
    keys = {'backbone': dict(lr_mult=0.1), 'layers.0': dict(decay_mult=0.5), 'pos_embed': dict(decay_mult=1.0)}
    found = by_name(model := Model(BEiTStub()), build(model, decay_rate=0.5, custom_keys=keys))
    assert found['backbone.layers.0.0.weight'] == pytest.approx((LR * 0.1 * 0.5**3, DECAY * 0.5))
    assert found['backbone.layers.1.0.weight'] == pytest.approx((LR * 0.1 * 0.5**2, 0.0))
    assert found['backbone.layers.1.1.weight'] == pytest.approx((LR * 0.1 * 0.5**2, DECAY))
    assert found['backbone.pos_embed'] == pytest.approx((LR * 0.1 * 0.5**4, DECAY))
    assert found['decoder.0.weight'] == (LR, DECAY)


def test_groups_are_as_few_as_their_settings():
    model = Model(BEiTStub(depth=3))
    assert len(build(model).optimizer.param_groups) == 2
    groups = build(model, decay_rate=0.5).optimizer.param_groups
    assert len(groups) == 2 * (3 + 2)
    assert len({(group['lr'], group['weight_decay']) for group in groups}) == len(groups)
    assert groups[0]['lr'] == max(group['lr'] for group in groups) == LR


def test_frozen_parameters_are_in_no_group_and_shared_ones_in_one():
    model = Model(BEiTStub(frozen_stages=1))
    found = by_name(model, build(model, decay_rate=0.5))
    assert set(found) == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not any('patch_embed' in name or 'layers.0' in name for name in found)
    assert 'decoder.0.weight' in found


def test_steps_are_those_of_one_group_per_parameter():
    torch.manual_seed(0)
    ours = Model(BEiTStub())
    single = copy.deepcopy(ours)
    wrapper = build(ours, decay_rate=0.7)
    settings = by_name(ours, wrapper)
    groups = [
        dict(params=[parameter], lr=settings[name][0], weight_decay=settings[name][1])
        for name, parameter in single.named_parameters()
    ]
    reference = OptimWrapper(torch.optim.AdamW(groups))
    for optim_wrapper, model in ((wrapper, ours), (reference, single)):
        torch.manual_seed(1)
        schedulers = [LinearLR(optim_wrapper, 0.1, end=3), MultiStepLR(optim_wrapper, [4], gamma=0.1)]
        start = [p.detach().clone() for p in model.parameters()]
        for _ in range(6):
            optim_wrapper.update_params(model(torch.randn(2, 3, 32, 32)))
            for scheduler in schedulers:
                scheduler.step()
        assert all((a != b).any() for a, b in zip(start, model.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), single.parameters(), strict=True))
    after = by_name(ours, wrapper)
    assert {name: lr for name, (lr, _) in after.items()} == pytest.approx(
        {name: 0.1 * lr for name, (lr, _) in settings.items()}
    )


@pytest.mark.parametrize('wrapped', [False, True])
def test_every_parameter_of_a_pyramid_has_a_layer(wrapped):
    model = nn.Module()
    model.backbone = PVT('tiny', embed_dims=(8, 8, 8, 8), num_heads=(1, 1, 1, 1), out_indices=(0, 1))
    found = by_name(model, build(nn.DataParallel(model) if wrapped else model, decay_rate=0.5))
    assert {lr / LR for lr, _ in found.values()} == {0.5 ** (5 - i) for i in range(5)}
    assert all(decay == 0 for name, (_, decay) in found.items() if 'pos_embed' in name)


def by_kind(backbone: Backbone, decay_rate: float = 0.5) -> tuple[dict[str, float], set[str]]:
    """Learning rates of a backbone's parameters over that of the rest, and those with weight decay."""
    model = nn.Module()
    model.backbone = backbone
    found = by_name(model, build(model, decay_rate=decay_rate))
    rates = {name.removeprefix('backbone.'): lr / LR for name, (lr, _) in found.items()}
    return rates, {name.removeprefix('backbone.') for name, (_, decay) in found.items() if decay}


@pytest.mark.parametrize(
    'arguments',
    [
        dict(dist_token=True, reg_tokens=4, final_norm=True),
        dict(class_token=False, rel_pos='decomposed', window_size=2, global_blocks=(1,)),
        dict(pos_embed=None, rel_pos='bias_table', layer_scale=0.1),
    ],
)
def test_vits_of_all_kinds(arguments):
    rates, decayed = by_kind(ViT('tiny', depth=3, img_size=64, **arguments))
    for name, rate in rates.items():  # the rule of detectron2, but for the final norm, which ViTDet does not have
        layer = int(name.split('.')[1]) + 1 if name.startswith('blocks.') else 3 if name.startswith('norm.') else 0
        assert rate == 0.5 ** (4 - layer), name
    linear = ('attn.qkv', 'attn.proj', 'mlp.fc1', 'mlp.fc2')
    assert decayed == {
        'patch_embed.proj.weight',
        *(f'blocks.{i}.{layer}.weight' for i in range(3) for layer in linear),
    }


@pytest.mark.parametrize('backbone', [Swin, SwinV2])
def test_swins(backbone):
    rates, decayed = by_kind(backbone('tiny', depths=(2, 1, 1, 1)))
    assert rates['patch_embed.proj.weight'] == 0.5**6
    assert [rates[f'layers.{s}.blocks.{i}.mlp.fc1.weight'] for s, i in ((0, 0), (0, 1), (3, 0))] == [
        0.5**5,
        0.5**4,
        0.5,
    ]
    assert rates['layers.0.downsample.reduction.weight'] == rates['norm0.weight'] == 0.5**4
    kinds = {name.split('.', 4)[-1] if '.blocks.' in name else name for name in decayed}
    assert {kind for kind in kinds if 'downsample' not in kind} == {
        'patch_embed.proj.weight',
        'attn.qkv.weight',
        'attn.proj.weight',
        'mlp.fc1.weight',
        'mlp.fc2.weight',
    }


def test_without_decay_any_model_gets_merged_groups():
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4))
    groups = build(model).optimizer.param_groups
    assert [len(group['params']) for group in groups] == [2, 4]


@pytest.mark.parametrize(
    ('paramwise', 'message'),
    [
        (
            dict(layer_decay_rate=0.7),
            "key of optim_wrapper.paramwise_cfg 'layer_decay_rate': did you mean 'decay_rate'",
        ),
        (dict(norm_decay=0), "'norm_decay': did you mean 'norm_decay_mult'"),
        (dict(custom_keys={'backbone': dict(lr=0.1)}), "custom_keys.backbone 'lr': did you mean 'lr_mult'"),
        (dict(decay_rate=1.5), r'decay_rate must be in \(0, 1\], got 1.5'),
        (dict(decay_rate=0), r'decay_rate must be in \(0, 1\], got 0'),
    ],
)
def test_wrong_settings_are_named(paramwise, message):
    with pytest.raises(ValueError, match=message):
        build(Model(BEiTStub()), **paramwise)


def test_what_it_cannot_work_on_is_an_error():
    with pytest.raises(
        ValueError, match=r'model.backbone is Linear, which does not tell the depth.*or set decay_rate=1'
    ):
        build(Model(nn.Linear(4, 4)), decay_rate=0.9)
    with pytest.raises(ValueError, match=r'optim_wrapper.optimizer must state lr and weight_decay'):
        build(Model(BEiTStub()), optimizer=dict(type='AdamW'))
