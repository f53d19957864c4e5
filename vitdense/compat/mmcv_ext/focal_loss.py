"""Focal losses (arXiv:1708.02002). Predictions (N, K), targets (N,); ``weight`` (K,) per class, or empty for none."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from vitdense.compat.mmcv_ext.precision import widen

__all__ = [
    'sigmoid_focal_loss_backward',
    'sigmoid_focal_loss_forward',
    'softmax_focal_loss_backward',
    'softmax_focal_loss_forward',
]


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write the loss of every logit into ``output`` (N, K). Target K is background: negative for every class."""
    logits, weight = widen(input, weight)
    p, q = logits.sigmoid(), (-logits).sigmoid()
    positive = -alpha * q**gamma * logsigmoid(logits)
    negative = -(1 - alpha) * p**gamma * logsigmoid(-logits)
    loss = torch.where(_one_hot(target, logits), positive, negative)
    output.copy_(loss * _weight_of(target, weight, logits)[:, None])


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write the derivative of every loss by its logit into ``grad_input`` (N, K)."""
    logits, weight = widen(input, weight)
    p, q = logits.sigmoid(), (-logits).sigmoid()
    positive = alpha * q**gamma * (gamma * p * logsigmoid(logits) - q)
    negative = (1 - alpha) * p**gamma * (p - gamma * q * logsigmoid(-logits))
    grad = torch.where(_one_hot(target, logits), positive, negative)
    grad_input.copy_(grad * _weight_of(target, weight, logits)[:, None])


def softmax_focal_loss_forward(
    softmax: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write the loss of every row into ``output`` (N,). ``softmax`` holds probabilities; a negative target gives 0."""
    softmax, weight = widen(softmax, weight)
    p, log_p = _of_target(softmax, target)
    loss = -alpha * (1 - p) ** gamma * log_p * _weight_of(target, weight, softmax)
    output.copy_(loss.masked_fill(target < 0, 0))


def softmax_focal_loss_backward(
    softmax: Tensor, target: Tensor, weight: Tensor, buff: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write the derivative of every row's loss by its logits into ``grad_input`` (N, K)."""
    softmax, weight = widen(softmax, weight)
    p, log_p = _of_target(softmax, target)
    q = (1 - p).clamp(min=torch.finfo(p.dtype).tiny)  # a certain prediction has a finite q ** (gamma - 1)
    factor = alpha * (gamma * q ** (gamma - 1) * p * log_p - q**gamma) * _weight_of(target, weight, softmax)
    grad = factor.masked_fill(target < 0, 0)[:, None] * (_one_hot(target, softmax).to(softmax) - softmax)
    grad_input.copy_(grad)


def _one_hot(target: Tensor, scores: Tensor) -> Tensor:
    return target[:, None] == torch.arange(scores.shape[1], device=scores.device)


def _of_target(softmax: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Probability of each row's target, and its logarithm: (N,) each."""
    p = softmax.gather(1, target.clamp(min=0)[:, None])[:, 0]
    return p, p.clamp(min=torch.finfo(p.dtype).tiny).log()


def _weight_of(target: Tensor, weight: Tensor, scores: Tensor) -> Tensor:
    """The weight of each row's class, 1 for a target that is no class (background, ignored): (N,)."""
    classes = scores.shape[1]
    if weight.numel() == 0:
        return scores.new_ones(len(target))
    is_class = (target >= 0) & (target < classes)
    return torch.where(is_class, weight[target.clamp(0, classes - 1)], 1)
