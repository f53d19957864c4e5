"""Loading published weights into a backbone, with a report of what fitted."""

import re
from collections.abc import Mapping

from torch import Tensor, nn

from vitdense.checkpoint.fetch import fetch
from vitdense.checkpoint.into_model import resize_tables
from vitdense.checkpoint.layouts import FAMILIES
from vitdense.checkpoint.read import read
from vitdense.checkpoint.report import Differences, listing, percent, report
from vitdense.checkpoint.translate import backbone_of, layout_of, to_ours, unwrap
from vitdense.console import say
from vitdense.registry import WEIGHT_INITIALIZERS


@WEIGHT_INITIALIZERS.register_module()
class Pretrained:
    """Initialise a backbone from a checkpoint of any layout in ``checkpoint/layouts``.

    The file may be that of a whole detector or segmentor. Logs one line: the share of the backbone's parameters that
    was loaded, from whose layout, what was resized, what starts afresh, and what of the file was left out.

    Args:
        checkpoint: a key of ``RELEASES``, a path, or a URL. Downloads are kept in ``torch.hub.get_dir()/checkpoints``.
        allow_partial: load what fits, whatever the file lacks or has too much of.

    Raises:
        FileNotFoundError: no such file or release.
        ConnectionError: the download failed; the message says which file to fetch and where to put it.
        ValueError: not a checkpoint of this backbone; or it has parameters too few, too many or of other shapes, which
            the message lists.
        TypeError: the module is not a backbone of vitdense.
    """

    def __init__(self, checkpoint: str, allow_partial: bool = False) -> None:
        self.checkpoint = checkpoint
        self.allow_partial = allow_partial

    def __call__(self, module: nn.Module) -> None:
        family = getattr(module, 'family', None)
        if family not in FAMILIES:
            raise TypeError(
                f'vitdense.Pretrained initialises the backbones of vitdense, not {type(module).__name__}; '
                "mmengine's initializer for others is type='Pretrained'"
            )
        path = fetch(self.checkpoint)
        content = read(path)
        try:
            state = backbone_of(unwrap(content))
            layout = layout_of(state, family)
            state, dropped = to_ours(state, layout)
            state, resized = resize_tables(state, module)
        except ValueError as error:
            raise ValueError(f'{path}: {error}') from None
        own = module.state_dict()
        fitting = {key: value for key, value in state.items() if key in own and value.shape == own[key].shape}
        share = sum(own[key].numel() for key in fitting) / sum(value.numel() for value in own.values())
        wrong = differences(module, state)
        if wrong and not (self.allow_partial and fitting):
            raise ValueError(
                f'{path} ({layout.name}) does not fit {type(module).__name__}: {percent(share)} of the backbone '
                f'parameters are there.{listing(wrong.described())}\n'
                'allow_partial=True of vitdense.Pretrained loads what fits'
            )
        module.load_state_dict(fitting, strict=False)
        remarks = {
            'resized': resized,
            'fresh': [key for key in own if key not in state and key not in wrong.missing],
            'left out': dropped + [key for key in state if key not in own and key not in wrong.unexpected],
            **wrong.keys(),
        }
        say(report(share, 'backbone parameters', path, [layout.name], remarks))


def differences(backbone: nn.Module, state: Mapping[str, Tensor]) -> Differences:
    """By what a state dict under our names is of another network than ``backbone``.

    A backbone says itself which parameters of a file it leaves out, and which of its own start afresh: all of these, or
    none where the file has any.
    """
    own = backbone.state_dict()
    lacking = [key for key in own if key not in state]
    if not any(re.match(backbone.fresh, key) for key in state):
        lacking = [key for key in lacking if not re.match(backbone.fresh, key)]
    surplus = [key for key in state if key not in own and not backbone.leaves_out(key)]
    shapes = {key: (own[key].shape, value.shape) for key, value in state.items() if key in own}
    return Differences(lacking, surplus, {key: pair for key, pair in shapes.items() if pair[0] != pair[1]})
