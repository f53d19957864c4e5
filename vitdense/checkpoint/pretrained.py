"""Loading published weights into a backbone, with a report of what fitted."""

from torch import nn

from vitdense.checkpoint.check import check_fit
from vitdense.checkpoint.fetch import fetch
from vitdense.checkpoint.into_model import adapt_backbone
from vitdense.checkpoint.layouts import family_of
from vitdense.checkpoint.read import read
from vitdense.console import say
from vitdense.models.backbones import Backbone
from vitdense.registry import WEIGHT_INITIALIZERS


@WEIGHT_INITIALIZERS.register_module()
class Pretrained:
    """Initialise a backbone from a checkpoint of any layout in ``checkpoint/layouts``.

    The file may be that of a whole detector or segmentor. Logs one line: the share of the backbone's parameters that
    was loaded, from whose layout, what was resized, what starts afresh, and what of the file was left out.

    Args:
        checkpoint: a key of ``RELEASES``, a path, a URL, or ``hf-hub:OWNER/NAME``, see :func:`.fetch`.
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
        if not isinstance(module, Backbone) or not family_of(type(module)):
            raise TypeError(
                f'vitdense.Pretrained initialises the backbones of vitdense, not {type(module).__name__}; '
                "mmengine's initializer for others is type='Pretrained'"
            )
        path = fetch(self.checkpoint)
        try:
            state, changes = adapt_backbone(read(path), module)
        except ValueError as error:
            raise ValueError(f'init_cfg: {path}: {error}') from None
        line = check_fit(module, state, path, purpose='init_cfg', changes=changes, allow_partial=self.allow_partial)
        own = module.state_dict()
        fitting = {key: value for key, value in state.items() if key in own and value.shape == own[key].shape}
        module.load_state_dict(fitting, strict=False)
        say(line)
