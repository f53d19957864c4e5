"""The history of scalars stays as long as somebody looks back, and no longer."""

import pickle
from types import SimpleNamespace
from uuid import uuid4

import pytest
from mmengine.logging import MessageHub
from mmengine.runner import LogProcessor

from vitdense.engine.history import LEAST, bound_history


def hub_of(processor: LogProcessor, train: int = 10, val: int = 10) -> MessageHub:
    hub = MessageHub.get_instance(uuid4().hex)
    for i in range(LEAST + 500):
        hub.update_scalar('train/loss', float(i))
    runner = SimpleNamespace(
        log_processor=processor, train_dataloader=range(train), val_dataloader=range(val), val_loop=1, message_hub=hub
    )
    bound_history(runner)
    return hub


def lengths(hub: MessageHub, more: int) -> dict[str, int]:
    for i in range(more):
        for key in ('train/loss', 'train/time', 'val/time'):
            hub.update_scalar(key, float(i))
    return {key: len(log.data[0]) for key, log in hub.log_scalars.items()}


def averaged(window: str) -> LogProcessor:
    return LogProcessor(custom_cfg=[dict(data_src='loss', method_name='mean', window_size=window)])


def test_old_and_new_scalars_are_bounded():
    hub = hub_of(LogProcessor(window_size=50))
    before = hub.get_scalar('train/loss').data[0]
    assert before.tolist() == list(range(500, LEAST + 500))
    assert set(lengths(hub, LEAST + 700).values()) == {LEAST}
    assert hub.get_scalar('train/loss').mean(50) == pytest.approx(LEAST + 699 - 24.5)


@pytest.mark.parametrize(
    ('processor', 'train', 'val', 'expected'),
    [
        (LogProcessor(window_size=1500), 10, 10, (1500, 1500)),
        (averaged('epoch'), 1600, 10, (1600, LEAST)),
        (LogProcessor(), 1600, 1200, (LEAST, 1200)),
        (averaged('global'), 10, 10, (3500, 2000)),
    ],
)  # fmt: skip
def test_what_is_averaged_over_is_kept(processor, train, val, expected):
    found = lengths(hub_of(processor, train, val), 2000)
    assert (found['train/loss'], found['val/time']) == expected


def test_a_checkpoint_does_not_grow_and_a_loaded_history_is_cut():
    hub = hub_of(LogProcessor())
    lengths(hub, 1500)
    size = len(pickle.dumps(hub.state_dict()))
    lengths(hub, 1500)
    assert len(pickle.dumps(hub.state_dict())) == size
    long = MessageHub.get_instance(uuid4().hex)
    lengths(long, 1800)
    hub.load_state_dict(long.state_dict())
    assert {len(log.data[0]) for log in hub.log_scalars.values()} == {LEAST}
    assert hub.get_scalar('val/time').data[0].tolist() == list(range(1800 - LEAST, 1800))
