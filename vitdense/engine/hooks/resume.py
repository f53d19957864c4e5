"""What a checkpoint needs besides the states of mmengine, so that a run goes on as if it had not been interrupted."""

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner

from vitdense.engine.rank_states import RankState, restore_rank_state
from vitdense.registry import HOOKS

VALIDATED = 'validated'
"""In the message hub: the iteration of the last validation that came to its end."""


@HOOKS.register_module()
class ResumeHook(Hook):
    """Puts into checkpoints what processes have for themselves, and after which iteration they were validated last."""

    def __init__(self) -> None:
        self.states: list[RankState] = []

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if 'optimizer' in checkpoint and getattr(runner, 'rank_states', None):
            checkpoint['rank_states'] = runner.rank_states

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if runner._resume:
            self.states = checkpoint.get('rank_states') or []

    def before_train(self, runner: Runner) -> None:
        """Restore, now that the weights and the optimizer are as they were."""
        restore_rank_state(runner, self.states)
        self.states = []

    def after_val(self, runner: Runner) -> None:
        if isinstance(runner._train_loop, BaseLoop):
            runner.message_hub.update_info(VALIDATED, runner.iter)
