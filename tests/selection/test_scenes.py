import cv2
import numpy as np
import pytest
import skimage.data

from basicsr_distill.selection.scenes import SceneIndex


@pytest.fixture(scope='module')
def index() -> SceneIndex:
    tests = {'astronaut': skimage.data.astronaut()[40:260, 120:330], 'cup': skimage.data.coffee(),
             'flat': np.full((100, 100, 3), 128, np.uint8)}
    return SceneIndex(list(tests), list(tests.values()))


def jpeg(rgb: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imdecode(cv2.imencode('.jpg', rgb, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def test_finds_the_scene_after_what_people_do_to_photographs(index: SceneIndex) -> None:
    whole = skimage.data.astronaut()
    assert index.find(whole) == 'astronaut', 'the photograph that a test image was cropped from'
    assert index.find(jpeg(whole, 50)) == 'astronaut'
    assert index.find(cv2.resize(whole, (300, 300), interpolation=cv2.INTER_AREA)) == 'astronaut'
    assert index.find(np.rot90(whole).copy()) == 'astronaut'
    assert index.find(skimage.data.coffee()[50:300, 100:450]) == 'cup', 'a crop of a test image'
    assert index.find(cv2.resize(whole, (1600, 1600), interpolation=cv2.INTER_CUBIC)) == 'astronaut'


def test_other_scenes_are_no_leak(index: SceneIndex) -> None:
    for name in ('chelsea', 'rocket', 'immunohistochemistry', 'colorwheel', 'hubble_deep_field', 'retina'):
        assert index.find(np.ascontiguousarray(getattr(skimage.data, name)()[..., :3])) is None, name
    assert index.find(np.full((200, 200, 3), 7, np.uint8)) is None


def test_an_empty_index_finds_nothing() -> None:
    assert SceneIndex([], []).find(skimage.data.chelsea()) is None


def test_the_answer_is_always_the_same(index: SceneIndex) -> None:
    rgb = jpeg(skimage.data.astronaut()[:280, 100:400], 30)
    assert len({index.find(rgb) for _ in range(5)}) == 1
