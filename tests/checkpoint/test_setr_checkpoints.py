"""Published checkpoints of SETR, whole: those of the paper's code and those of mmseg."""

import re

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from support.backbones import assert_maps_close, layout_of, randomize_
from support.configs import model_of

from vitdense.checkpoint.check import check_fit
from vitdense.checkpoint.into_model import adapt
from vitdense.checkpoint.translate import layout_of as layout_of_state
from vitdense.checkpoint.translate import to_ours, to_theirs
from vitdense.config.load import load_config

DECODERS = ['naive', 'pup', 'mla']
BLOCKS = 4
MAPS = tuple(range(BLOCKS))
NO_BIAS = {'mla': [f'auxiliary_head.{i}.conv_seg.bias' for i in range(4)]}
"""What the released models do not have, and conversion fills with zeros."""


@pytest.fixture(autouse=True)
def scope() -> None:
    init_default_scope('mmseg')


def config_of(decoder: str, **backbone) -> ConfigDict:
    return model_of(f'setr/setr_{decoder}_vit-l_8xb2-160k_ade20k-512x512.py', **backbone)


def official(decoder: str, blocks: int) -> dict[str, torch.Tensor]:
    """Random values under the names of the released file, of the first ``blocks`` blocks."""
    torch.manual_seed(1)
    keys = layout_of(f'setr_{decoder}')['extra_layouts']['released_512']
    later = {
        key for key, *_ in keys if (found := re.match(r'backbone\.blocks\.(\d+)', key)) and int(found[1]) >= blocks
    }
    return {key: torch.randn(shape) for key, shape, *_ in keys if key not in later}


@pytest.mark.slow
@pytest.mark.parametrize('decoder', DECODERS)
def test_values_of_the_release_go_to_their_places(decoder):
    model = MODELS.build(config_of(decoder, depth=BLOCKS, out_indices=MAPS))
    state = official(decoder, BLOCKS)
    converted = adapt(dict(meta={}, state_dict=state), model)[0]['state_dict']
    model.load_state_dict(converted)
    places = {'backbone.blocks.3.mlp.fc2.weight': 'backbone.blocks.3.mlp.fc2.weight'}
    if decoder == 'mla':
        places |= {
            'neck.norm.3.weight': 'backbone.norm_3.weight',
            'neck.project.0.conv.weight': 'backbone.mla.mla_p2_1x1.0.weight',
            'neck.project.3.bn.running_var': 'backbone.mla.mla_p5_1x1.1.running_var',
            'neck.extract.1.conv.weight': 'backbone.mla.mla_p3.0.weight',
            'decode_head.convs.2.0.bn.bias': 'decode_head.mlahead.head4.1.bias',
            'decode_head.convs.3.1.conv.weight': 'decode_head.mlahead.head5.3.weight',
            'decode_head.conv_seg.weight': 'decode_head.cls.weight',
            'auxiliary_head.2.conv_seg.weight': 'auxiliary_head.2.aux.weight',
        }
        assert torch.equal(converted['backbone.pos_embed'], state['backbone.pos_embed'][:, 1:])
    else:
        last = 4 if decoder == 'pup' else 1
        places |= {
            'decode_head.norm.weight': 'decode_head.norm.weight',
            'decode_head.convs.0.conv.bias': 'decode_head.conv_0.bias',
            f'decode_head.convs.{last - 1}.bn.running_mean': f'decode_head.syncbn_fc_{last - 1}.running_mean',
            'decode_head.conv_seg.bias': f'decode_head.conv_{last}.bias',
            'auxiliary_head.2.conv_seg.weight': 'auxiliary_head.2.conv_1.weight',
        }
    for own, theirs in places.items():
        assert torch.equal(converted[own], state[theirs]), own
    zeros = [key for key, value in converted.items() if value.is_floating_point() and not value.any()]
    assert zeros == NO_BIAS.get(decoder, [])


def peer_config(decoder: str) -> ConfigDict:
    model = load_config(f'mmseg::setr/setr_vit-l_{decoder}_8xb2-160k_ade20k-512x512.py').model
    model.backbone.update(embed_dims=24, num_layers=BLOCKS, num_heads=2, out_indices=MAPS, img_size=(64, 64))
    del model.backbone['init_cfg']
    return model


def narrow(model: ConfigDict) -> ConfigDict:
    """The heads and the neck on maps of 24 channels."""
    heads = [model.decode_head, *model.auxiliary_head]
    if 'neck' in model:
        model.neck.in_channels = [24] * BLOCKS
    else:
        for head in heads:
            head.in_channels = 24
    return model


@pytest.mark.parametrize('patch_bias', [False, True])
@pytest.mark.parametrize('decoder', DECODERS)
def test_segmentors_of_mmseg_give_the_same_logits(decoder, patch_bias):
    """Of all heads, from images that are not square and for which the table of positions is resized.

    Written in mmseg's layout, the weights are those that were read, but for the class token that a decoder takes off.
    """
    config = narrow(peer_config(decoder))
    config.backbone.patch_bias = patch_bias
    theirs = randomize_(revert_sync_batchnorm(MODELS.build(config)))
    small = dict(arch='tiny', embed_dims=24, depth=BLOCKS, num_heads=2, out_indices=MAPS, img_size=64)
    config = narrow(config_of(decoder, **small))
    if decoder == 'mla':
        config.decode_head.up_align_corners = False
    else:  # three auxiliary heads with other convolutions than in the release
        config.auxiliary_head = config.auxiliary_head[:3]
        peers = [theirs.decode_head, *theirs.auxiliary_head]
        for own, peer in zip([config.decode_head, *config.auxiliary_head], peers, strict=True):
            scale = int(peer.up_convs[0][1].scale_factor)
            own.update(num_convs=len(peer.up_convs), up_scale=scale, kernel_size=peer.up_convs[0][0].kernel_size[0])
    ours = revert_sync_batchnorm(MODELS.build(config)).eval()
    state = theirs.state_dict()
    layout = layout_of_state(state, 'setr')
    assert layout.note.endswith({'mla': '.up_align_corners=False', 'naive': '.up_scale=4', 'pup': ''}[decoder])
    assert bool(layout.note) == (decoder != 'pup')
    converted, _ = to_ours(state, layout)
    ours.load_state_dict(converted)
    if decoder == 'mla':
        state['backbone.cls_token'], state['backbone.pos_embed'][:, 0] = torch.zeros(1, 1, 24), 0
    written = to_theirs(ours.state_dict(), layout)
    assert written.keys() == state.keys()
    assert all(torch.equal(written[key], value) for key, value in state.items())
    image = torch.randn(2, 3, 80, 112, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        maps, their_maps = ours.extract_feat(image), theirs.extract_feat(image)
        assert_maps_close([ours.decode_head(maps)], [theirs.decode_head(their_maps)])
        pairs = zip(ours.auxiliary_head, theirs.auxiliary_head[:: -1 if decoder == 'mla' else 1], strict=True)
        for own, peer in pairs:
            assert_maps_close([own(maps)], [peer(their_maps)])


def test_other_classes_start_afresh():
    config = config_of('naive', depth=BLOCKS, out_indices=MAPS)
    for head in (config.decode_head, *config.auxiliary_head):
        head.num_classes = 11
    model = MODELS.build(config)
    checkpoint, changes = adapt(dict(meta={}, state_dict=official('naive', BLOCKS)), model)
    heads = ['decode_head', 'auxiliary_head.*']
    told = [f'{head}.conv_seg starts afresh: 150 logits are in the file, 11 in the model' for head in heads]
    assert changes.reasons() == told
    line = check_fit(model, checkpoint, 'a.pth', changes=changes)
    assert re.match(r'loaded 99\.\d % of .*\), fresh 8 \(decode_head\.\*, auxiliary_head\.\*\), left out 8 ', line)
    assert line.endswith('; '.join(['', *told]))
