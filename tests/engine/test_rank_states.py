"""What processes have for themselves beside the states that mmengine saves."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.models.data_preprocessors import BatchSyncRandomResize
from mmengine.optim import OptimWrapper
from torch import nn

from vitdense.engine.rank_states import gather_rank_states, gradients_wait, restore_rank_state


class DynamicRoIHead(nn.Module):
    """Has what mmdet's head of this name remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.iou_history, self.beta_history = [], []
        self.bbox_assigner = SimpleNamespace(pos_iou_thr=0.4, neg_iou_thr=0.4, min_pos_iou=0.4)
        self.bbox_head = nn.Module()
        self.bbox_head.loss_bbox = SimpleNamespace(beta=1.0)


def make(accumulative_counts: int = 1) -> SimpleNamespace:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), DynamicRoIHead(), BatchSyncRandomResize((320, 640)))
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), 0.1), accumulative_counts)
    wrapper.initialize_count_status(nn.Identity(), 0, 100)
    return SimpleNamespace(model=model, optim_wrapper=wrapper)


def test_what_a_model_remembers_comes_back():
    runner, other = make(), make()
    head, resize = runner.model[2], runner.model[3]
    head.iou_history = [0.5, np.float64(0.25)]
    head.bbox_assigner.pos_iou_thr = np.mean([0.5, 0.6])
    head.bbox_head.loss_bbox.beta = 0.3
    resize._input_size = (448, 512)
    states = gather_rank_states(runner)
    head.iou_history.append(1.0)
    restore_rank_state(other, states)
    head, resize = other.model[2], other.model[3]
    assert head.iou_history == [0.5, 0.25]
    assert [type(value) for value in head.iou_history] == [float, float]
    assert (head.bbox_assigner.pos_iou_thr, head.bbox_assigner.neg_iou_thr) == (0.55, 0.4)
    assert (head.bbox_head.loss_bbox.beta, resize._input_size) == (0.3, (448, 512))


@pytest.mark.parametrize(('batches', 'waits'), [(0, False), (1, True), (2, True), (3, False), (4, True)])
def test_gradients_are_saved_while_they_wait_for_a_step(batches, waits):
    runner, other = make(3), make(3)
    linear = runner.model[0]
    for _ in range(batches):
        runner.optim_wrapper.update_params(linear(torch.ones(1, 2)).sum())
    assert gradients_wait(runner.optim_wrapper) is waits
    states = gather_rank_states(runner)
    assert ('gradients' in states[0]) is waits
    restore_rank_state(other, states)
    restored = other.model[0].weight.grad
    assert torch.equal(restored, linear.weight.grad) if waits else restored is None


def test_statistics_are_those_of_one_process_where_there_is_one():
    assert 'buffers' not in gather_rank_states(make())[0]
