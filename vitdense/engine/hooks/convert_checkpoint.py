"""Checkpoints of others, brought to the model that loads them."""

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner

from vitdense.checkpoint.check import check_fit
from vitdense.checkpoint.into_model import adapt
from vitdense.console import say
from vitdense.models.wrappers import unwrap_model
from vitdense.registry import HOOKS


@HOOKS.register_module()
class ConvertCheckpointHook(Hook):
    """Converts what ``load_from``, resuming and testing load, and says in one line how much of the model it fills.

    It knows the layouts of ``checkpoint/layouts``: of the official files, of ``transformers``, and of the zoos of mmdet
    and mmseg. It resizes tables, takes the 80 classes out of the 91 ids of COCO, and leaves heads with other
    classes fresh. A file that does not fit is an error (see :func:`check_fit`). So is one that would have to be
    converted to be resumed: the state of its optimizer belongs to another model.

    Args:
        allow_partial: for ``load_from``: load what fits, however little it is.
    """

    priority = 'VERY_HIGH'

    def __init__(self, allow_partial: bool = False) -> None:
        self.allow_partial = allow_partial

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Replace the content of ``checkpoint``.

        Raises:
            ValueError: it does not fit the model; the message names the setting and the file.
        """
        path, model = runner._load_from, unwrap_model(runner.model)
        trains = isinstance(runner._train_loop, BaseLoop)  # a config that is not built yet where the run is a test
        purpose = '--resume' if runner._resume else 'load_from' if trains else 'checkpoint'
        try:
            converted, changes = adapt(checkpoint, model)
        except ValueError as error:
            raise ValueError(f'{purpose}: {path}: {error}') from None
        if runner._resume and changes:
            cause = ', '.join(changes.sources) or 'of another image size or other classes'
            raise ValueError(
                f'--resume: the weights of {path} would be converted ({cause}), which the state of its optimizer '
                f'cannot be; --cfg-options load_from={path} starts a new run with them'
            )
        say(check_fit(model, converted, path, purpose=purpose, changes=changes, allow_partial=self.allow_partial))
        checkpoint.clear()
        checkpoint.update(converted)
