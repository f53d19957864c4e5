"""Whole segmentors: Trans2Seg."""

import re

from .family import Family, Layout, State

TRANSFORMER = 'decode_head.transformer.'
BLOCK = rf'{re.escape(TRANSFORMER)}blocks_decoder\.(\d+)\.'
UNUSED = r'mlp3|norm4'
UNUSED_AT_LAST = r'attn\.proj|norm[23]|mlp2?'


def _drop_unused(state: State) -> State:
    """Leave out of the decoder what never reaches the logits, and give the class queries no dimension for images."""
    last = max(int(found[1]) for key in state if (found := re.match(BLOCK, key)))
    kept = {}
    for key, value in state.items():
        block = re.match(BLOCK, key)
        at_last = block and int(block[1]) == last
        if block and re.match(rf'({UNUSED_AT_LAST if at_last else UNUSED})\.', key[block.end() :]):
            continue
        if at_last:
            key = key.replace('.attn.fc_kv.', '.fc_k.').replace('.attn.', '.')
            value = value[: len(value) // 2] if '.fc_k.' in key else value
        kept[key] = value[0] if key == f'{TRANSFORMER}cls_embed' else value
    return kept


TRANS2SEG = Family(
    classes=('Trans2SegHead',),
    whole=True,
    own=rf'{re.escape(TRANSFORMER)}cls_embed',
    class_head=rf'{re.escape(TRANSFORMER)}cls_embed',
    layouts=(
        Layout(
            'xieenze/Trans2Seg',
            probe=r'transformer_head\.transformer\.vit\.cls_embed',
            dropped=('encoder.fc.',),
            places=(
                ('encoder.conv1.', 'backbone.stem.'),
                ('encoder.bn1.', 'backbone.stem.7.'),
                ('encoder.layer{i}.{j}.', 'backbone.layer{i}.{j}.'),
                ('transformer_head.transformer.vit.hybrid_embed.proj.', f'{TRANSFORMER}hybrid_embed.'),
                ('transformer_head.transformer.vit.', TRANSFORMER),
                ('transformer_head.lay{i}.block.depthwise.', 'decode_head.lay{i}.depthwise_conv.conv.'),
                ('transformer_head.lay{i}.block.bn_depth.', 'decode_head.lay{i}.depthwise_conv.bn.'),
                ('transformer_head.lay{i}.block.pointwise.', 'decode_head.lay{i}.pointwise_conv.conv.'),
                ('transformer_head.lay{i}.block.bn_point.', 'decode_head.lay{i}.pointwise_conv.bn.'),
                ('transformer_head.pred.', 'decode_head.conv_seg.'),
                ('transformer_head.conv_c1.', 'decode_head.conv_c1.'),
            ),
            tensors=_drop_unused,
        ),
    ),
)
