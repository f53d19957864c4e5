"""Models as ONNX files: ``python benchmarks/export.py --threads 1 --out export.md [NAME ...]``.

Each model is one of the configs, in full size and with random weights. The table has the seconds
of the export, the megabytes of the file, the largest differences to PyTorch on a picture of each size, and the time of
onnxruntime over that of PyTorch for one picture, the least of the rounds, in turns. Without names all are measured.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import torch
from measuring import brief, options, report
from mmengine.logging import MMLogger
from mmengine.registry import MODELS as BUILDERS
from mmengine.registry import DefaultScope
from torch import nn

import vitdense.engine  # noqa: F401  it silences what the packages print
from vitdense.config.load import load_config
from vitdense.config.settle import settle
from vitdense.config.swap.measure import without_weights
from vitdense.console import quiet_console
from vitdense.export.graphs import graph_of
from vitdense.export.onnx import to_onnx
from vitdense.export.proof import Differences, add
from vitdense.export.runtime import OnnxModel
from vitdense.models.tasks import SEMANTIC
from vitdense.predict.load import data_meta
from vitdense.predict.model import Model
from vitdense.predict.sources import Frame
from vitdense.registry import nearest_type_names

ROOT = Path(__file__).parents[1]
SIZES = [(320, 416), (352, 288)]
MODELS = [
    'detr/detr_r50_8xb2-150e_coco',
    'detr/detr_pvt-s_8xb2-50e_coco',
    'detr/detr_swin-t_8xb2-150e_coco',
    'deformable_detr/deformable-detr_r50_8xb4-50e_coco',
    'deformable_detr/deformable-detr_pvtv2-b2_8xb4-50e_coco',
    'deformable_detr/deformable-detr_swin-t_8xb4-50e_coco',
    'deformable_detr/deformable-detr_vit-b_8xb4-50e_coco',
    'yolos/yolos-s_8xb1-150e_coco',
    'bccd/retinanet_pvtv2-b0_fpn_bccd',
    'pvt/retinanet_pvt-s_fpn_1x_coco',
    'pvt_v2/retinanet_pvtv2-b2_fpn_1x_coco',
    'swin/retinanet_swin-t_fpn_1x_coco',
    'vit_frcnn/faster-rcnn_vit-b_coco',
    'pvt/mask-rcnn_pvt-s_fpn_1x_coco',
    'pvt_v2/mask-rcnn_pvtv2-b2_fpn_1x_coco',
    'swin/mask-rcnn_swin-t_fpn_1x_coco',
    'vitdet/mask-rcnn_vitdet-b_100e_coco',
    'swin/cascade-mask-rcnn_swin-t_fpn_ms-3x_coco',
    'vitdet/cascade-mask-rcnn_vitdet-b_100e_coco',
    'pvt/sem-fpn_pvt-s_8xb4-40k_ade20k-512x512',
    'pvt_v2/sem-fpn_pvtv2-b2_8xb4-40k_ade20k-512x512',
    'swin/upernet_swin-t_8xb2-160k_ade20k-512x512',
    'vit_upernet/upernet_vit-b_8xb2-160k_ade20k-512x512',
    'setr/setr_naive_deit-b_8xb1-80k_cityscapes-768x768',
    'setr/setr_mla_deit-b_8xb1-80k_cityscapes-768x768',
    'setr/setr_pup_deit-b_8xb1-80k_cityscapes-768x768',
]


def build(name: str) -> Model:
    """The model of a config with random weights, whose classifiers are undecided."""
    cfg = load_config(str(ROOT / 'configs' / f'{name}.py'))
    settle(cfg)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmengine'), nearest_type_names():
        network = BUILDERS.build(without_weights(cfg.model))
        quiet_console(MMLogger.get_current_instance())  # it would list all parameters
        network.init_weights()
    for key, parameter in network.named_parameters():
        if key.endswith(('retina_cls.bias', 'fc_cls.bias')):
            nn.init.zeros_(parameter)
        elif key.endswith(('retina_cls.weight', 'fc_cls.weight', 'conv_seg.weight')):
            nn.init.normal_(parameter, std=0.2)
    return Model(cfg, network, data_meta(cfg), torch.device('cpu'))


def least(steps: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The least milliseconds of each step, which take turns."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            found[name].append((time.perf_counter() - start) * 1e3)
    return {name: min(times) for name, times in found.items()}


def differences(model: Model, path: Path) -> list[str]:
    """The largest of boxes and scores, or the share of the pixels, over ``SIZES``, as ``vitdense export`` compares."""
    exported = OnnxModel(path)
    found = Differences()
    for hw in SIZES:
        model.fix_size(hw)
        exported.fix_size(hw)
        add(found, model, exported, Frame(picture(hw), 'blots'))
    if model.task == SEMANTIC:
        return ['', '', '', f'{found.pixels:.1g}']
    return [f'{found.detections}, {found.other}', f'{found.boxes:.1g}', f'{found.scores:.1g}', f'{found.pixels:.1g}']


def picture(hw: tuple[int, int]) -> np.ndarray:
    """A picture of blots."""
    blots = np.random.default_rng(hw[0]).integers(0, 255, (8, 10, 3), np.uint8)
    return cv2.resize(blots, hw[::-1], interpolation=cv2.INTER_CUBIC)


def measure(name: str, rounds: int, folder: Path) -> tuple[str, ...]:
    """A row of the table."""
    model = build(name)
    semantic = model.task == SEMANTIC
    path = folder / 'model.onnx'
    start = time.perf_counter()
    to_onnx(model, path)
    seconds = time.perf_counter() - start
    setup = onnxruntime.SessionOptions()
    setup.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, setup, providers=['CPUExecutionProvider'])
    graph = graph_of(model.network, model.task).eval()
    found = differences(model, path)
    hw = SIZES[0]
    image = torch.randn(1, 3, *hw)
    feed = {one.name: value for one, value in zip(session.get_inputs(), (image.numpy(), np.array(hw)), strict=False)}
    size = [torch.tensor(hw)] if semantic else []
    with torch.inference_mode():
        times = least(dict(torch=lambda: graph(image, *size), onnx=lambda: session.run(None, feed)), rounds)
    size_mb = path.stat().st_size / 2**20
    return (name.split('/')[1], f'{seconds:.0f}', f'{size_mb:.0f}', *found, f'{times["onnx"] / times["torch"]:.2f}')


def main() -> None:
    parser = options(__doc__, repeat=2)
    parser.add_argument('models', nargs='*', default=MODELS, metavar='NAME')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows, notes = [], [f'Pictures of {SIZES[0][0]} x {SIZES[0][1]} and {SIZES[1][0]} x {SIZES[1][1]} pixels']
    header = (
        'model',
        'seconds',
        'MB',
        'detections, of one alone',
        'boxes',
        'scores',
        'pixels',
        'onnxruntime / PyTorch',
    )
    with tempfile.TemporaryDirectory() as folder:
        for name in args.models:
            try:
                row = measure(name, args.repeat, Path(folder))
            except Exception as error:  # the others are measured
                notes.append(f'{name}: {brief(error)}')
                print(notes[-1], flush=True)
                continue
            rows.append(row)
            print(row, flush=True)
    report(args, header, [rows], ('vitdense', 'torch', 'onnxruntime', 'onnxscript'), notes)


if __name__ == '__main__':
    main()
