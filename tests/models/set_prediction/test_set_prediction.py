"""Matching, losses and selection against brute force and mmdet, on the same predictions and ground truths."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.dense_heads import DETRHead as MMDetHead
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torchvision.ops import generalized_box_iou

from vitdense.models.set_prediction import (
    HungarianMatcher,
    Predictions,
    SetCriterion,
    Targets,
    cxcywh_to_xyxy,
    generalized_iou,
    select,
    xyxy_to_cxcywh,
)

LAYERS, QUERIES, CLASSES = 3, 7, 4
HW = (120, 200)


def random_boxes(*shape: int) -> torch.Tensor:
    """Boxes (..., 4), cxcywh, within the image."""
    sizes = 0.05 + 0.4 * torch.rand(*shape, 2)
    return torch.cat([sizes / 2 + (1 - sizes) * torch.rand(*shape, 2), sizes], dim=-1)


def case(counts, softmax=True, queries=QUERIES, seed=0) -> tuple[Predictions, Targets]:
    torch.manual_seed(seed)
    logits = torch.randn(LAYERS, len(counts), queries, CLASSES + softmax, requires_grad=True)
    boxes = random_boxes(LAYERS, len(counts), queries).requires_grad_()
    labels = [torch.randint(CLASSES, (n,)) for n in counts]
    targets = Targets.collate(labels, [random_boxes(n) for n in counts], [f'image {i}' for i in range(len(counts))])
    return Predictions(logits, boxes), targets


def criterion(softmax=True) -> SetCriterion:
    cost, loss = (1.0, 1.0) if softmax else (2.0, 2.0)
    return SetCriterion(HungarianMatcher(cost, 5.0, 2.0, softmax), loss, 5.0, 2.0)


def mmdet_head(softmax: bool) -> MMDetHead:
    init_default_scope('mmdet')  # its default assigner names no scope, and another test may have left one
    if softmax:  # its default is changed by the first use
        return MMDetHead(CLASSES, loss_cls=dict(type='mmdet.CrossEntropyLoss', bg_cls_weight=0.1, class_weight=1.0))
    cost = dict(type='mmdet.FocalLossCost', weight=2.0)
    others = dict(type='mmdet.BBoxL1Cost', weight=5.0, box_format='xywh'), dict(type='mmdet.IoUCost', weight=2.0)
    return MMDetHead(
        CLASSES,
        sync_cls_avg_factor=True,
        loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0),
        train_cfg=dict(assigner=dict(type='mmdet.HungarianAssigner', match_costs=[cost, *others])),
    )


def mmdet_losses(predictions: Predictions, targets: Targets, softmax: bool) -> dict[str, torch.Tensor]:
    height, width = HW
    truths = [
        InstanceData(labels=labels[:n], bboxes=cxcywh_to_xyxy(boxes[:n]) * torch.tensor([width, height] * 2))
        for labels, boxes, n in zip(targets.labels, targets.boxes, targets.counts, strict=True)
    ]
    metas = [dict(img_shape=HW)] * len(truths)
    return mmdet_head(softmax).loss_by_feat(predictions.logits, predictions.boxes, truths, metas)


@pytest.mark.parametrize('softmax', [True, False])
@pytest.mark.parametrize('counts', [(3, 1), (2, 0, 4), (0, 0), (7,), (9, 2)], ids=str)
def test_losses_and_gradients_equal_those_of_mmdet(counts, softmax):
    predictions, targets = case(counts, softmax)
    results = []
    for losses in (criterion(softmax)(predictions, targets), mmdet_losses(predictions, targets, softmax)):
        gradients = torch.autograd.grad(sum(losses.values()), predictions)
        results.append((losses, gradients))
    (ours, our_gradients), (theirs, their_gradients) = results
    assert ours.keys() == theirs.keys()
    for name, loss in theirs.items():
        assert abs(ours[name] - loss) <= 1e-5, name
    for a, b in zip(our_gradients, their_gradients, strict=True):
        assert (a - b).abs().max() <= 1e-5


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=3),
    queries=st.integers(1, 5),
    softmax=st.booleans(),
)
def test_no_assignment_costs_less(seed, counts, queries, softmax):
    predictions, targets = case(counts, softmax, queries, seed)
    matcher = criterion(softmax).matcher
    matches, costs = matcher(predictions, targets), matcher.costs(predictions, targets)
    for layer, (image, count) in itertools.product(range(LAYERS), enumerate(counts)):
        mine = (matches.layers == layer) & (matches.images == image)
        chosen, found = matches.queries[mine], matches.targets[mine]
        assert len(chosen) == len(set(chosen.tolist())) == len(set(found.tolist())) == min(count, queries)
        cost = costs[layer, image, :, :count]
        cost = cost if count <= queries else cost.T
        least = min(
            sum(cost[q, t].item() for t, q in enumerate(order))
            for order in itertools.permutations(range(len(cost)), cost.shape[1])
        )
        assert costs[layer, image, chosen, found].sum().item() == pytest.approx(least, abs=1e-5)


@given(seed=st.integers(0, 10**6))
def test_generalized_iou_equals_that_of_torchvision(seed):
    torch.manual_seed(seed)
    a, b = random_boxes(5), random_boxes(4)
    expected = generalized_box_iou(cxcywh_to_xyxy(a), cxcywh_to_xyxy(b))
    torch.testing.assert_close(generalized_iou(a[:, None], b), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(xyxy_to_cxcywh(cxcywh_to_xyxy(a)), a)


def test_boxes_without_area_have_finite_costs_and_gradients():
    boxes = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.5, 0.5, 0.2, 0.0]], requires_grad=True)
    values = generalized_iou(boxes[:, None], boxes.detach())
    assert values.isfinite().all()
    values.sum().backward()
    assert boxes.grad.isfinite().all()


def test_costs_are_copied_to_the_host_once(monkeypatch):
    copies = []
    for name in ('cpu', 'item', 'tolist', 'numpy', '__bool__', '__float__', '__int__'):
        method = getattr(torch.Tensor, name)

        def counted(self, *args, method=method, name=name, **kwargs):
            copies.append((name, self.shape))
            return method(self, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, counted)
    predictions, targets = case((3, 0, 5))
    criterion()(predictions, targets)
    assert [name for name, _ in copies] == ['cpu', 'numpy']  # the latter of what is on the host already
    copies.clear()
    criterion()(*case((0, 0)))
    assert copies == []


def test_more_objects_than_queries_leave_the_worst_fitting_out():
    predictions, targets = case((QUERIES + 2,))
    matches = criterion().matcher(predictions, targets)
    assert np.bincount(matches.layers).tolist() == [QUERIES] * LAYERS
    assert matches.targets.max() > QUERIES - 1 or len(matches.targets.unique()) > QUERIES


@pytest.mark.parametrize('label', [-1, CLASSES])
@pytest.mark.parametrize('softmax', [True, False])
def test_labels_that_are_no_class_are_named(label, softmax):
    predictions, targets = case((2, 3), softmax)
    targets.labels[1, 2] = label
    with pytest.raises(ValueError, match=rf'labels \[\d, \d, {label}\] of image 1 are not all from 0 to 3'):
        criterion(softmax)(predictions, targets)


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (lambda p, t: p.logits.data[1, 1].fill_(torch.nan), 'class logits of decoder layer 1 .* in image 1'),
        (lambda p, t: p.boxes.data[2, :, 0].fill_(torch.inf), 'boxes of decoder layer 2 .* in image 0, image 1'),
        (lambda p, t: t.boxes[0, 1].fill_(torch.nan), 'ground truth boxes of decoder layer 0 .* in image 0'),
    ],
)
def test_costs_that_are_not_finite_name_their_cause(spoil, message):
    predictions, targets = case((2, 3))
    spoil(predictions, targets)
    with pytest.raises(ValueError, match=message):
        criterion()(predictions, targets)


def test_half_precision_predictions_are_matched_in_float32():
    predictions, targets = case((3, 2))
    half = Predictions(predictions.logits.bfloat16(), predictions.boxes)
    losses, exact = criterion()(half, targets), criterion()(predictions, targets)
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    assert abs(sum(losses.values()) - sum(exact.values())) < 0.05 * sum(exact.values())


@pytest.mark.parametrize('softmax', [True, False])
@pytest.mark.parametrize('counts', [(5, 0), (0, 0), (1, 0), (2, 3)], ids=str)
def test_the_mean_over_two_processes_is_the_loss_of_their_images(counts, softmax, monkeypatch):
    """Each with an image: what divides their losses is exchanged, be it the number of boxes or the sum of weights."""
    predictions, targets = case(counts, softmax)
    both = criterion(softmax)(predictions, targets)
    halves = []
    for i in range(2):
        truth = Targets.collate([targets.labels[i][: counts[i]]], [targets.boxes[i][: counts[i]]], ['image'])
        halves.append((Predictions(*(x[:, i : i + 1] for x in predictions)), truth))
    own: list[torch.Tensor] = []
    monkeypatch.setattr(f'{SetCriterion.__module__}.mean_over_processes', lambda x: own.append(x) or x)
    for half in halves:
        criterion(softmax)(*half)
    mean = sum(own) / 2
    monkeypatch.setattr(f'{SetCriterion.__module__}.mean_over_processes', lambda x: mean)
    monkeypatch.setattr(f'{SetCriterion.__module__}.count_of_processes', lambda: 2)
    apart = [criterion(softmax)(*half) for half in halves]
    for name, loss in both.items():
        torch.testing.assert_close((apart[0][name] + apart[1][name]) / 2, loss)


def test_boxes_beyond_the_image_are_learned_as_they_are():
    predictions, targets = case((2,))
    targets.boxes[0, 0] = torch.tensor([1.1, 0.5, 0.4, 0.2])
    losses = criterion()(predictions, targets)
    assert all(loss.isfinite() for loss in losses.values())
    matches = criterion().matcher(predictions, targets)
    last = matches.layers == LAYERS - 1
    boxes = predictions.boxes[-1, 0, matches.queries[last]]
    expected = 5 * (boxes - targets.boxes[0, matches.targets[last]]).abs().sum() / 2
    torch.testing.assert_close(losses['loss_bbox'], expected)


def test_selection_with_a_softmax_is_the_best_class_of_each_query():
    predictions, _ = case((1, 1))
    logits, boxes = (x[-1] for x in predictions)
    found = select(logits, boxes, softmax=True, count=5)
    scores, labels = logits.softmax(-1)[..., :-1].max(-1)
    for i in range(2):
        order = scores[i].argsort(descending=True)[:5]
        torch.testing.assert_close(found.scores[i], scores[i, order])
        assert torch.equal(found.labels[i], labels[i, order])
        torch.testing.assert_close(found.boxes[i], cxcywh_to_xyxy(boxes[i, order]))
        assert torch.equal(found.queries[i], order)


def test_selection_with_sigmoids_is_over_all_pairs_of_query_and_class():
    predictions, _ = case((1, 1), softmax=False)
    logits, boxes = (x[-1] for x in predictions)
    found = select(logits, boxes, softmax=False, count=1000)
    assert found.scores.shape == (2, QUERIES * CLASSES)
    assert (found.scores.diff(dim=1) <= 0).all()
    torch.testing.assert_close(logits[torch.arange(2)[:, None], found.queries, found.labels].sigmoid(), found.scores)
    assert {(q, c) for q, c in zip(found.queries[0].tolist(), found.labels[0].tolist(), strict=True)} == set(
        itertools.product(range(QUERIES), range(CLASSES))
    )


def test_equal_scores_keep_the_order_of_the_queries():
    found = select(torch.zeros(1, 6, 3), random_boxes(1, 6), softmax=True, count=4)
    assert found.queries.tolist() == [[0, 1, 2, 3]]
