"""Drawing: the right colour at the right pixel, names that can be read, nothing lost on a sheet."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mmdet.datasets import CocoDataset
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.structures import InstanceData, PixelData
from mmseg.datasets import ADE20KDataset, BaseSegDataset
from mmseg.structures import SegDataSample
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from vitdense.datasets import ShapesDataset, ShapesSegDataset
from vitdense.visualization import Labels, class_colors, draw, predicted_labels, rgb_image, sheet, true_labels
from vitdense.visualization.drawing import _free_place, font, resize
from vitdense.visualization.loading import load
from vitdense.visualization.palette import contrast, distinct_colors, oklab, text_color
from vitdense.visualization.sheets import PAPER, shorten

RED, GREEN = (255, 0, 0), (0, 200, 0)
rgb = st.tuples(*[st.integers(0, 255)] * 3)


def grey(h: int, w: int, value: int = 100) -> torch.Tensor:
    return torch.full((3, h, w), value, dtype=torch.uint8)


def noise(h: int, w: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, h, w), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


# palette


def test_oklab_and_contrast_have_the_published_values():
    assert oklab(np.array([255, 0, 0])) == pytest.approx([0.62796, 0.22486, 0.12585], abs=1e-4)
    assert oklab(np.array([255, 255, 255])) == pytest.approx([1, 0, 0], abs=1e-4)
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.005)


@given(rgb)
def test_text_can_be_read_on_any_colour(background):
    assert contrast(text_color(background), background) >= 4.5


@pytest.mark.parametrize(('count', 'apart'), [(5, 0.3), (20, 0.13), (80, 0.07), (1203, 0.01)])
def test_own_colours_are_apart(count, apart):
    colors = distinct_colors(count)
    lab = torch.from_numpy(oklab(np.array(colors)))
    distance = torch.cdist(lab, lab, compute_mode='donot_use_mm_for_euclid_dist') + 9 * torch.eye(count)
    assert distance.min() >= apart
    assert colors[:3] == distinct_colors(3)
    assert (lab[:, 0] > 0.5).all()


def test_palette_of_a_data_set_is_taken_where_it_is_usable():
    own = distinct_colors(3)
    names = ('a', 'b', 'c')
    assert class_colors(dict(classes=names, palette=[(1, 2, 3), (4, 5, 6), (7, 8, 9)])) == [
        (1, 2, 3),
        (4, 5, 6),
        (7, 8, 9),
    ]
    assert class_colors(ADE20KDataset.METAINFO) == [tuple(color) for color in ADE20KDataset.METAINFO['palette']]
    assert class_colors(dict(classes=names, palette=CocoDataset.METAINFO['palette'])) == own
    assert class_colors(dict(classes=names, palette=[(0, 0, 0)] * 3)) == own
    assert class_colors(dict(classes=names, palette=[(0, 0, 300), (1, 1, 1), (2, 2, 2)])) == own
    assert class_colors(dict(classes=names)) == own
    assert class_colors(None) == []
    made_up = BaseSegDataset(metainfo=dict(classes=names), lazy_init=True).metainfo
    assert len(made_up['palette']) == 3
    assert class_colors(made_up) == own


# images


def test_images_of_all_pipelines_become_rgb():
    image = noise(6, 8)
    assert torch.equal(rgb_image(image.flip(0)), image)
    assert torch.equal(rgb_image(image, bgr=False), image)
    assert torch.equal(rgb_image(image.flip(0).permute(1, 2, 0).numpy()), image)
    assert torch.equal(rgb_image(image.flip(0).float()), image)
    assert torch.equal(rgb_image(image.flip(0) / 255), image)
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    normalised = (image - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    assert torch.equal(rgb_image(normalised.float(), norm=dict(mean=mean, std=std, to_rgb=True)), image)
    assert torch.equal(rgb_image(image[:1]), image[:1].expand(3, -1, -1))
    assert torch.equal(rgb_image(image[0].numpy()), image[:1].expand(3, -1, -1))
    stretched = rgb_image(normalised.float(), bgr=False)
    assert (stretched.min(), stretched.max()) == (0, 255)


# boxes and names


def test_box_is_where_it_belongs_after_enlarging():
    labels = Labels(torch.tensor([[10.0, 20, 50, 60]]), torch.tensor([1]))
    picture = draw(grey(80, 100), labels, ['a', 'b'], [RED, GREEN], side=400)
    assert picture.size == (400, 320)
    pixels = pil_to_tensor(picture)
    coloured = (pixels == torch.tensor(GREEN)[:, None, None]).all(0)
    assert coloured[80, 40:200].all()
    assert coloured[240, 40:200].all()
    assert coloured[80:240, 40].all()
    assert coloured[80:240, 200].all()
    name_height = sum(font(11).getmetrics())
    outside = torch.ones(320, 400, dtype=torch.bool)
    outside[80 - name_height : 241, 40:201] = False
    outside[84:236, 44:196] = True
    assert (pixels[:, outside] == 100).all()


def test_name_and_score_are_written_in_a_readable_colour_above_the_box():
    boxes, classes = torch.tensor([[40.0, 40, 120, 80]]), torch.tensor([0])
    with_score = draw(grey(100, 200, 0), Labels(boxes, classes, torch.tensor([0.5])), ['cat'], [(255, 255, 0)], None)
    without = draw(grey(100, 200, 0), Labels(boxes, classes), ['cat'], [(255, 255, 0)], None)
    letters = font(11)
    for picture, text in ((with_score, 'cat 0.50'), (without, 'cat')):
        width, height = round(letters.getlength(text)) + 4, sum(letters.getmetrics())
        name = np.asarray(picture)[40 - height : 40, 40 : 40 + width]
        yellow = (name == (255, 255, 0)).all(-1)
        assert yellow[0].all()
        assert yellow[:, 0].all()
        assert (name == (0, 0, 0)).all(-1).any()
        assert (np.asarray(picture)[40 - height : 39, 40 + width] == 0).all()


@given(
    st.tuples(st.integers(-50, 700), st.integers(-50, 700), st.integers(0, 300), st.integers(0, 300)),
    st.tuples(st.integers(60, 640), st.integers(60, 640)),
    st.lists(st.tuples(st.integers(0, 600), st.integers(0, 600)), max_size=5),
)
def test_names_stay_in_the_picture_and_off_each_other(box, size, others):
    x, y, w, h = box
    x, y = min(max(x, 0), size[0] - 1), min(max(y, 0), size[1] - 1)
    box = [x, y, min(x + w, size[0] - 1), min(y + h, size[1] - 1)]
    assert _free_place(box, 50, 14, size, []) is not None
    taken = [(left, top, left + 49, top + 13) for left, top in others]
    place = _free_place(box, 50, 14, size, taken)
    if place is not None:
        left, top, right, bottom = place
        assert 0 <= left < right < size[0]
        assert 0 <= top < bottom < size[1]
        assert (right - left + 1, bottom - top + 1) == (50, 14)
        canvas = np.zeros((700, 700), int)
        for a, b, c, d in taken:
            canvas[b : d + 1, a : c + 1] = 1
        assert canvas[top : bottom + 1, left : right + 1].sum() == 0


number = st.one_of(st.floats(-500, 500), st.sampled_from([float('nan'), float('inf'), -float('inf')]))


@example([(0.0, 0.0, 1.0, 1.0, -1)], (1, 1), False)
@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(number, number, number, number, st.integers(-1, 4)), max_size=30),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.booleans(),
)
def test_no_box_stops_the_drawing(objects, shape, scored):
    boxes = torch.tensor([values[:4] for values in objects]).reshape(-1, 4)
    classes = torch.tensor([values[4] for values in objects], dtype=torch.long)
    labels = Labels(boxes, classes, torch.rand(len(objects)) if scored else None)
    picture = draw(grey(*shape), labels, ['a', 'b', 'c'], distinct_colors(3), side=120)
    assert max(picture.size) == 120
    if not len(objects):
        assert picture.tobytes() == resize(grey(*shape), 120).tobytes()


def test_lines_are_thin_in_a_crowd():
    def width(count: int) -> int:
        boxes = torch.tensor([[10.0 * i, 200, 10 * i + 300, 390] for i in range(count)])
        labels = Labels(boxes, torch.zeros(count, dtype=torch.long))
        pixels = np.asarray(draw(grey(400, 640), labels, [''], [RED], None))
        return int((pixels[380:, 155] == RED).all(-1).sum())

    assert (width(5), width(30)) == (2, 1)


# masks and maps


def test_masks_of_all_kinds_are_painted_alike():
    bitmap = np.zeros((2, 40, 40), np.uint8)
    bitmap[0, 5:35, 5:35] = 1
    bitmap[1, 10:20, 10:20] = 1
    polygons = [[np.array([5, 5, 35, 5, 35, 35, 5, 35.0])], [np.array([10, 10, 20, 10, 20, 20, 10, 20.0])]]
    drawn = []
    for masks in (BitmapMasks(bitmap, 40, 40), PolygonMasks(polygons, 40, 40), torch.from_numpy(bitmap).bool()):
        sample = DetDataSample(gt_instances=InstanceData(labels=torch.tensor([0, 1]), masks=masks))
        drawn.append(np.asarray(draw(grey(40, 40), true_labels(sample), ['a', 'b'], [RED, GREEN], None)))
    assert (drawn[0] == drawn[1]).all()
    assert (drawn[0] == drawn[2]).all()
    pixels = drawn[0]
    assert tuple(pixels[25, 25]) == (177, 50, 50)
    assert tuple(pixels[15, 15]) == (50, 150, 50)
    assert tuple(pixels[5, 20]) == RED
    assert tuple(pixels[10, 15]) == GREEN
    assert tuple(pixels[2, 2]) == (100, 100, 100)


def test_ignored_pixels_stay_as_they_are():
    semantic = torch.full((1, 30, 40), 255)
    semantic[0, :10] = 0
    semantic[0, 10:20] = 1
    semantic[0, 29] = 7
    labels = true_labels(SegDataSample(gt_sem_seg=PixelData(data=semantic)))
    picture = np.asarray(draw(noise(30, 40), labels, ['a', 'b'], [RED, GREEN], side=160)).astype(int)
    plain = np.asarray(resize(noise(30, 40), 160)).astype(int)
    assert (picture[80:116] == plain[80:116]).all()
    assert (picture[:40] == (plain[:40] + RED) // 2).all()
    assert (picture[40:80] == (plain[40:80] + GREEN) // 2).all()
    assert (picture[116:] == (plain[116:] + 150) // 2).all()
    assert labels.present() == {0: 400, 1: 400, 7: 40}


def test_labels_and_predictions_of_a_sample():
    sample = DetDataSample(
        gt_instances=InstanceData(bboxes=HorizontalBoxes([[1.0, 2, 3, 4]]), labels=torch.tensor([2])),
        pred_instances=InstanceData(
            bboxes=torch.tensor([[0.0, 0, 9, 9], [1, 1, 5, 5]]),
            labels=torch.tensor([0, 1]),
            scores=torch.tensor([0.2, 0.3]),
        ),
    )
    assert true_labels(sample).boxes.tolist() == [[1, 2, 3, 4]]
    assert predicted_labels(sample, 0.3).boxes.tolist() == [[1, 1, 5, 5]]
    assert predicted_labels(sample, 0.3).classes.tolist() == [1]
    assert not true_labels(DetDataSample())


# sheets


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(30, 200), st.integers(30, 200)), min_size=1, max_size=9))
def test_a_sheet_shows_every_picture_whole_and_every_class(sizes):
    colors = distinct_colors(len(sizes) + 2)
    cells = [[('title', Image.new('RGB', size, color))] for size, color in zip(sizes, colors, strict=False)]
    legend = [('first', colors[-1]), ('a long name ' * 10, colors[-2])]
    pixels = np.asarray(sheet(cells, 'heading', legend))
    for size, color in zip(sizes, colors, strict=False):
        found = (pixels == color).all(-1)
        assert found.sum() == size[0] * size[1]
    assert all((pixels == color).all(-1).any() for _, color in legend)
    assert (pixels[:, -5:] == PAPER).all()


def test_an_empty_sheet_is_refused():
    with pytest.raises(ValueError, match='at least one picture'):
        sheet([])


@given(st.text(alphabet='abcdefgh_0123.jpg', min_size=1, max_size=80), st.integers(40, 300))
def test_long_titles_keep_both_ends(text, width):
    short = shorten(text, 13, width)
    assert font(13).getlength(short) <= width
    if short != text:
        start, end = short.split('…')
        assert text.startswith(start)
        assert text.endswith(end)
        assert abs(len(start) - len(end)) <= 1


# loading

LOAD = [dict(type='LoadImageFromFile'), dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True)]
PACK = [dict(type='mmdet.Resize', scale=(64, 64)), dict(type='mmdet.PackDetInputs')]


@pytest.fixture(scope='module')
def shapes(tmp_path_factory) -> dict:
    return dict(data_root=str(tmp_path_factory.mktemp('data') / 'shapes'), split='val', num_train=1, num_val=3)


def test_labels_are_loaded_in_the_pixels_of_the_file(shapes):
    dataset = ShapesDataset(**shapes, pipeline=[*LOAD, *PACK], test_mode=True)
    for index in range(3):
        info = dataset.get_data_info(index)
        image, labels = load(dataset, index, bgr=True)
        assert torch.equal(image, pil_to_tensor(Image.open(info['img_path']).convert('RGB')))
        assert labels.boxes.tolist() == [instance['bbox'] for instance in info['instances']]
        assert labels.classes.tolist() == [instance['bbox_label'] for instance in info['instances']]
        assert labels.masks.shape == (len(info['instances']), *image.shape[1:])


@pytest.mark.slow
def test_labels_are_found_in_wrapped_data_sets_and_without_a_loading_transform(shapes):
    plain = ShapesDataset(**shapes, pipeline=[*LOAD, *PACK], test_mode=True)
    unlabelled = ShapesDataset(**shapes, pipeline=[LOAD[0], *PACK], test_mode=True)
    both, twice = ConcatDataset([plain, unlabelled]), RepeatDataset(plain, 2)
    for wrapped, index, inner in ((both, 1, 1), (both, 5, 2), (twice, 5, 2)):
        image, labels = load(wrapped, index, bgr=True)
        expected_image, expected = load(plain, inner, bgr=True)
        assert torch.equal(image, expected_image)
        assert torch.equal(labels.boxes, expected.boxes)


@pytest.mark.parametrize('loader', [[dict(type='mmseg.LoadAnnotations')], []])
def test_semantic_maps_are_those_of_the_files(shapes, loader):
    pipeline = [dict(type='LoadImageFromFile'), dict(type='mmseg.Resize', scale=(64, 64)), *loader]
    dataset = ShapesSegDataset(**shapes, pipeline=pipeline, reduce_zero_label=True)
    labels = load(dataset, 1, bgr=True)[1]
    file = np.array(Image.open(dataset.get_data_info(1)['seg_map_path']))
    assert (labels.semantic.numpy() == np.where(file == 0, 255, file - 1.0)).all()


def test_ignored_boxes_are_left_out(shapes):
    dataset = ShapesDataset(**shapes, pipeline=[*LOAD, *PACK], test_mode=True)
    index = max(range(3), key=lambda i: len(dataset.get_data_info(i)['instances']))
    dataset.full_init()
    info = dataset.get_data_info(index)
    info['instances'][0]['ignore_flag'] = 1
    dataset.get_data_info = lambda _: info
    assert load(dataset, index, bgr=True)[1].boxes.tolist() == [i['bbox'] for i in info['instances'][1:]]
