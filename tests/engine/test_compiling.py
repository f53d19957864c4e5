"""``compile=dict(...)``: the networks are compiled, the steps are those of the model as it is."""

import pytest
import torch
from support.families import train
from support.sweep import but_for_the_sweep

from vitdense.engine import compiling

ADAMW = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4, eps=1e-4), clip_grad=dict(max_norm=1.0)
)  # whose step mmengine's way fails to compile
PARTS = {
    'YOLOS': ['backbone'],
    'DETR': ['backbone', 'bbox_head.transformer'],
    'RetinaNet': ['backbone', 'neck', 'bbox_head'],
    'Mask R-CNN': ['backbone', 'neck', 'rpn_head'],
    'SETR': ['backbone', 'decode_head'],
}
HOW = [*((family, dict(backend='aot_eager')) for family in PARTS), ('YOLOS', True)]


@pytest.mark.slow
@pytest.mark.parametrize(('family', 'settings'), but_for_the_sweep(HOW, [('SETR', dict(backend='aot_eager'))]))
def test_compiled_steps_are_the_same(family, settings, tmp_path, monkeypatch):
    seen = []

    def parts(model, original=compiling.compile_parts, **given):
        seen.extend(original(model, **given))
        assert given == ({} if settings is True else settings)
        return seen

    monkeypatch.setattr('vitdense.engine.runner.compile_parts', parts)
    given = dict(batch_size=2, steps=3, optim_wrapper=ADAMW)
    exact, compiled = (train(family, tmp_path, **given, cfg=cfg) for cfg in ({}, dict(compile=settings)))
    assert seen == PARTS[family]
    for a, b in zip(exact.steps, compiled.steps, strict=True):
        assert b == pytest.approx(a, rel=1e-5)
    for name, value in exact.after.items():
        torch.testing.assert_close(compiled.after[name], value, rtol=1e-5, atol=1e-5, msg=name)


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = torch.nn.Linear(2, 2)


def test_only_training_is_compiled():
    model, graphs = Model(), []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    assert compiling.compile_parts(model, backend=backend) == ['backbone']
    x = torch.ones(1, 2)
    found = model.eval().backbone(x)
    assert graphs == []
    assert torch.equal(model.train().backbone(x), found)
    assert len(graphs) == 1


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(backend='fastest'), 'compile: .*fastest.*backends: .*inductor'),
        (dict(fast=True), "compile: .*unexpected keyword argument 'fast'"),
        ('inductor', "compile: expected arguments of torch.compile, True or False, found 'inductor'"),
    ],
)
def test_settings_that_do_not_exist(settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        train('Semantic FPN', tmp_path, batch_size=2, steps=1, cfg=dict(compile=settings))
