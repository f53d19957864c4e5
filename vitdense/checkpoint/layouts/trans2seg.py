"""Whole segmentors: Trans2Seg."""

import re

from .family import Family, Layout, State

HEAD = r'transformer_head\.'
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


_PARTS = {'depthwise': 'depthwise_conv.conv', 'bn_depth': 'depthwise_conv.bn'}
_PARTS |= {'pointwise': 'pointwise_conv.conv', 'bn_point': 'pointwise_conv.bn'}

TRANS2SEG = Family(
    whole=True,
    class_head=rf'{re.escape(TRANSFORMER)}cls_embed',
    layouts=(
        Layout(
            'xieenze/Trans2Seg',
            probe=rf'{HEAD}transformer\.vit\.cls_embed',
            places=(
                (r'encoder\.fc\.', None),
                (r'encoder\.conv1\.', 'backbone.stem.'),
                (r'encoder\.bn1\.', 'backbone.stem.7.'),
                (r'encoder\.', 'backbone.'),
                (rf'{HEAD}transformer\.vit\.hybrid_embed\.proj\.', f'{TRANSFORMER}hybrid_embed.'),
                (rf'{HEAD}transformer\.vit\.', TRANSFORMER),
                *((rf'{HEAD}(lay\d)\.block\.{old}\.', rf'decode_head.\1.{new}.') for old, new in _PARTS.items()),
                (rf'{HEAD}pred\.', 'decode_head.conv_seg.'),
                (rf'{HEAD}(?=conv_c1\.)', 'decode_head.'),
            ),
            tensors=_drop_unused,
        ),
    ),
)
