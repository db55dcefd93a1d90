import cv2
import numpy as np
import pytest
import skimage.data

from basicsr_distill.selection.scenes import SceneIndex


@pytest.fixture(scope='module')
def index() -> SceneIndex:
    tests = {
        'astronaut': skimage.data.astronaut()[40:260, 120:330],
        'cup': skimage.data.coffee(),
        'flat': np.full((100, 100, 3), 128, np.uint8),
    }
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


def test_finds_mirror_images_and_negatives(index: SceneIndex) -> None:
    whole = skimage.data.astronaut()
    thumbnail = cv2.resize(whole, (300, 300), interpolation=cv2.INTER_AREA)
    for copy in (whole, jpeg(whole, 50), thumbnail, whole[:350, 60:400], np.rot90(whole)):
        for altered in (copy[:, ::-1], copy[::-1], 255 - copy, jpeg(255 - copy[:, ::-1], 50)):
            assert index.find(np.ascontiguousarray(altered)) == 'astronaut'
    assert index.find(255 - skimage.data.coffee()[50:300, 449:99:-1]) == 'cup', 'of a crop of a test image'


def test_a_part_of_a_photograph_is_found_wherever_its_strongest_edges_are(index: SceneIndex) -> None:
    """A quarter of the area is the test image, the rest of it a checkerboard of the strongest corners."""
    board = np.kron(np.indices((48, 48)).sum(0) % 2 * 255, np.ones((16, 16)))[..., None].repeat(3, -1).astype(np.uint8)
    board[300:520, 300:510] = skimage.data.astronaut()[40:260, 120:330]
    assert index.find(board[:600, :600].copy()) == index.find(255 - board[:600, 599::-1]) == 'astronaut'


def test_other_scenes_are_no_leak(index: SceneIndex) -> None:
    for name in ('chelsea', 'rocket', 'immunohistochemistry', 'colorwheel', 'hubble_deep_field', 'retina'):
        rgb = np.ascontiguousarray(getattr(skimage.data, name)()[..., :3])
        for altered in (rgb, rgb[:, ::-1], 255 - rgb, 255 - rgb[:, ::-1]):
            assert index.find(np.ascontiguousarray(altered)) is None, name
    assert index.find(np.full((200, 200, 3), 7, np.uint8)) is None


def test_an_empty_index_finds_nothing() -> None:
    assert SceneIndex([], []).find(skimage.data.chelsea()) is None


def test_the_answer_is_always_the_same(index: SceneIndex) -> None:
    rgb = jpeg(skimage.data.astronaut()[:280, 100:400], 30)
    assert len({index.find(rgb) for _ in range(5)}) == 1
