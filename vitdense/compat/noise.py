"""Warnings of the OpenMMLab packages that mean nothing."""

import logging
import re
import warnings
from functools import wraps
from typing import Any

from vitdense.compat.after_import import after_import

NOISE = (
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
    '`save_param_scheduler` is True but',
    '`reduce_zero_label` will be deprecated',
    'The prefix is not set in metric class',
    'The draw is False',
    'Resumed iteration number is not divisible by',  # and gradients lost: our checkpoints hold them
    'Default ``avg_non_ignore`` is False',
    'The model and loaded state dict do not match exactly',  # our own line says what does not
    'Setting OMP_NUM_THREADS environment variable for each process',
    'Setting MKL_NUM_THREADS environment variable for each process',
    '`broadcast_buffers` is deprecated',  # an argument that mmengine gives
    'Grad strides do not match bucket view strides',  # of 1 x 1 convolutions, whatever the config
    'Warning: The bbox is out of bounds,',
    'Warning: The polygon is out of bounds,',
    'Unnecessary conv bias before batch/instance norm',  # of official releases
    'For binary segmentation, we suggest using',  # one output or two: both are learned
    'torch.meshgrid: in an upcoming release',
    'DeprecationWarning: `num_anchors` is deprecated',
    "Failed to add <class 'mmengine.visualization",  # of an inferencer, which writes no log
    'Failed to search registry with scope "mmdet" in the "function" registry',  # the one of mmengine is right
    'Failed to search registry with scope "mmseg" in the "function" registry',
    "'pin_memory' argument is set as true but no accelerator is found",
)
"""Beginnings of warnings that mmengine, mmdet and mmseg give at every run, whatever the user does."""


def install() -> None:
    """Let no warning of ``NOISE`` be shown in this process, whoever builds or runs a model."""
    for beginning in NOISE:
        warnings.filterwarnings('ignore', re.escape(beginning))
    warnings.filterwarnings('ignore', 'To copy construct from a tensor', module='mmdet')  # of each Cascade with masks
    after_import('mmengine.infer.infer', quiet_inferencers)


def quiet_inferencers(module: Any) -> None:
    """Inferencers log to mmengine's own console, before anybody could give it another one."""
    build = module.BaseInferencer.__init__

    @wraps(build)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        from mmengine.logging import MMLogger

        logger = MMLogger.get_current_instance()
        logger.addFilter(is_news)
        try:
            build(self, *args, **kwargs)
        finally:
            logger.removeFilter(is_news)

    module.BaseInferencer.__init__ = init


def is_news(record: logging.LogRecord) -> bool:
    """Whether a record is not one of ``NOISE``."""
    return not record.getMessage().startswith(NOISE)
