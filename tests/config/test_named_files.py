"""Files that sections name to be read."""

from pathlib import Path
from typing import Any

import pytest

from basicsr_distill.config.named_files import named_files
from basicsr_distill.config.sections.datasets import LatentPatchDatasetOptions
from basicsr_distill.config.sections.dit import MinimaxDiTNetworkOptions
from basicsr_distill.config.sections.extract import ExtractOptions
from basicsr_distill.config.sections.losses import HighFrequencyLossOptions
from basicsr_distill.config.sections.sample import SampleOptions
from basicsr_distill.config.sections.select import SelectOptions, TargetOptions
from basicsr_distill.errors import InputError

FILES = (
    'a.csv',
    'w.pth',
    'clip/open_clip_config.json',
    'pipe/config.json',
    'pipe/vae/config.json',
    'EDSR/x',
    't.yml',
    'openai/x',
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def select(**keys: Any) -> SelectOptions:
    return SelectOptions.model_validate({'num_images': 2, 'save_dir': 'out', **keys})


VAE = {'type': 'autoencoder_kl', 'pretrained': 'pipe'}


@pytest.mark.parametrize(
    ('section', 'expected'),
    [
        (select(method='file', scores={'path': 'a.csv'}), {'scores.path': 'a.csv'}),
        (select(encoder={'type': 'open_clip'}), {}),  # a folder called as the tag openai is
        (select(encoder={'type': 'open_clip', 'name': 'clip', 'pretrained': 'w.pth'}), {'encoder.pretrained': 'w.pth'}),
        (
            select(encoder=[{'type': 'texture'}, {'type': 'open_clip', 'name': 'local-dir:clip', 'pretrained': None}]),
            {'encoder.1.name': 'clip'},
        ),
        (select(codec=VAE), {'codec.pretrained': 'pipe'}),
        (select(codec={**VAE, 'subfolder': 'vae'}), {'codec.pretrained': 'pipe/vae'}),
        (select(codec={**VAE, 'pretrained': 'someone/vae'}), {}),
        (
            select(targets={'type': 'mix', 'network': 't.yml', 'weights': 'w.pth'}),
            {'targets.network': 't.yml', 'targets.weights': 'w.pth'},
        ),
        (select(targets={'type': 'hr', 'network': 't.yml', 'weights': 'gone.pth'}), {}),
        (
            TargetOptions(
                type='teacher',
                network={'type': 'EDSR', 'deep': [{'init': 'w.pth', 'folder': 'pipe/vae'}]},
                weights='w.pth',
            ),
            {'network.deep.0.init': 'w.pth', 'network.deep.0.folder': 'pipe/vae', 'weights': 'w.pth'},
        ),
        (SampleOptions(images_per_cluster=1, save_dir='pipe'), {}),
        (MinimaxDiTNetworkOptions(num_labels=2, pretrained='pipe'), {'pretrained': 'pipe'}),
        (MinimaxDiTNetworkOptions(num_labels=2, pretrained='w.pth'), {'pretrained': 'w.pth'}),
        (
            LatentPatchDatasetOptions.model_validate(
                {'name': 'n', 'dataroot': 'pipe', 'labels_file': 'a.csv', 'codec': VAE}
            ),
            {'codec.pretrained': 'pipe'},
        ),
        (
            ExtractOptions.model_validate(
                {
                    'dataroot': 'pipe',
                    'save_dir': 'out',
                    'leak_check': ['clip'],
                    'scores': [{'file': 'a.csv', 'min': 1}, {'metric': 'musiq', 'weights': 'w.pth', 'min': 1}],
                }
            ),
            {'scores.0.file': 'a.csv', 'scores.1.weights': 'w.pth'},
        ),
        (
            {
                'type': 'EDSR',
                'kind': 'EDSR',
                'spynet_path': 'w.pth',
                'none': None,
                'depth': 3,
                'loss': HighFrequencyLossOptions.model_validate({'pixel_codec': {'pretrained': 'pipe/vae'}}),
            },
            {'spynet_path': 'w.pth', 'loss.pixel_codec.pretrained': 'pipe/vae'},
        ),
    ],
)
def test_files_by_the_key_that_names_them(section: Any, expected: dict[str, str]) -> None:
    assert {key: path.as_posix() for key, path in named_files(section, 'there').items()} == expected


def test_what_can_be_nothing_but_a_file_has_to_be_there() -> None:
    with pytest.raises(InputError, match=r'^select\.scores\.path: gone\.csv: no such file; correct the path\.$'):
        named_files(select(method='file', scores={'path': 'gone.csv'}), 'select')
