"""Where onnxruntime computes."""

import onnxruntime
import pytest

from vitdense.export.runtime import OnnxModel, providers_of

GPU = ['CUDAExecutionProvider', 'CPUExecutionProvider']


def test_providers_are_known_to_onnxruntime():
    known = onnxruntime.get_all_providers()
    for device, first in (('cpu', 'CPUExecutionProvider'), ('cuda:1', ('CUDAExecutionProvider', {'device_id': 1}))):
        found = providers_of(device, GPU)
        assert found[0] == first
        assert {name if isinstance(name, str) else name[0] for name in found} <= set(known)
    assert providers_of('cuda', GPU)[0] == ('CUDAExecutionProvider', {'device_id': 0})


@pytest.mark.parametrize(
    ('device', 'message'),
    [
        ('gpu', "device 'gpu': expected cpu, cuda"),
        ('cuda:x', "device 'cuda:x': expected cpu, cuda"),
        ('cuda', "device 'cuda' cannot be used: pip install onnxruntime-gpu"),
    ],
)
def test_a_device_that_cannot_be_used(device, message, monkeypatch):
    monkeypatch.setattr(onnxruntime, 'get_available_providers', lambda: ['CPUExecutionProvider'])
    with pytest.raises(ValueError, match=message):
        OnnxModel('lost.onnx', device)
