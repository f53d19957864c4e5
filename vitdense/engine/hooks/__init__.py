"""What happens around the steps of a run."""

from .checkpoint import CheckpointHook
from .convert_checkpoint import ConvertCheckpointHook
from .early_stopping import EarlyStoppingHook
from .evaluation_files import EvaluationFilesHook
from .global_loss import GlobalLossHook
from .invalid_loss import InvalidLossError, InvalidLossHook
from .pictures import PicturesHook
from .progress import ProgressHook
from .recent_batches import RecentBatchesHook
from .results import ResultsHook
from .resume import ResumeHook
from .show import ShowHook
from .start_report import StartReportHook
from .stop import StopHook
from .worker_seed import WorkerSeedHook

__all__ = [
    'CheckpointHook',
    'ConvertCheckpointHook',
    'EarlyStoppingHook',
    'EvaluationFilesHook',
    'GlobalLossHook',
    'InvalidLossError',
    'InvalidLossHook',
    'PicturesHook',
    'ProgressHook',
    'RecentBatchesHook',
    'ResultsHook',
    'ResumeHook',
    'ShowHook',
    'StartReportHook',
    'StopHook',
    'WorkerSeedHook',
]
