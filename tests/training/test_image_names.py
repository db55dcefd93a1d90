from types import SimpleNamespace

import pytest

from basicsr_distill.training.image_names import NamedImages, distinct_paths


@pytest.mark.parametrize(
    ('paths', 'stems'),
    [
        (['s/a.png', 's/b.png'], ['a', 'b']),
        (['s/A/p.png', 's/B/p.png', 's/B/q.png'], ['A_p', 'B_p', 'B_q']),
        (['s/p.png', 's/p.jpg'], ['p_png', 'p_jpg']),
        (['s/A/p.png', 's/A_p.png', 's/p.png', 's/B/p.png'], ['A_p_png_0', 'A_p_png_1', 'p_png_2', 'B_p_png_3']),
        ([], []),
    ],
)
def test_no_two_images_share_a_name(paths: list[str], stems: list[str]) -> None:
    named = distinct_paths(paths)
    assert list(named) == paths
    assert [path.rsplit('/', 1)[1].rsplit('.', 1)[0] for path in named.values()] == stems
    assert [path.rsplit('/', 1)[0] for path in named.values()] == [path.rsplit('/', 1)[0] for path in paths]


def test_a_loader_of_any_dataset_is_wrapped() -> None:
    class Loader(list):
        dataset = SimpleNamespace(paths=['s/A/p.png', 's/B/p.png'])

    loader = NamedImages(Loader([{'lq_path': ['s/B/p.png'], 'lq': 1}, {'latent': 2}, 3]))
    assert list(loader) == [{'lq_path': ['s/B/B_p.png'], 'lq': 1}, {'latent': 2}, 3] and len(loader) == 3
