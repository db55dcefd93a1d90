"""Paths and names in option files, as users write them."""

from pathlib import Path

import pytest
from sr_experiments import train_options, write_options

from basicsr_distill.cli import main
from basicsr_distill.config.paths import expand_paths
from basicsr_distill.config.yaml_files import load_option_file, read_option_file
from basicsr_distill.errors import InputError


def test_the_home_folder_stands_in_every_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('HOME', '/home/ada')
    path = write_options(
        tmp_path / 'x.yml',
        {
            'extract': {'dataroot': ['~/photos', 'relative'], 'save_dir': '~/patches', 'leak_check': ['~/Set5']},
            'cluster': {'save_dir': '~/clusters', 'encoder': {'name': 'local-dir:~/clip', 'pretrained': '~/clip.pt'}},
            'sample': {'save_dir': '~/set'},
            'datasets': {'train': {'labels_file': '~/clusters/labels.csv', 'codec': {'pretrained': '~/vae'}}},
            'network_g': {'pretrained': '~/dit', 'name': 'a~/b'},
            'path': {'pretrain_network_g': None, 'resume_state': '~'},
            'val': {'metrics': {'lpips': {'weights': '~/alex.pth'}}},
        },
    )
    options = read_option_file(path, ['benchmark={path: ~/mine}'])
    assert options['extract'] == {
        'dataroot': ['/home/ada/photos', 'relative'],
        'save_dir': '/home/ada/patches',
        'leak_check': ['/home/ada/Set5'],
    }
    assert options['cluster']['encoder'] == {'name': 'local-dir:/home/ada/clip', 'pretrained': '/home/ada/clip.pt'}
    assert options['datasets']['train'] == {
        'labels_file': '/home/ada/clusters/labels.csv',
        'codec': {'pretrained': '/home/ada/vae'},
    }
    assert options['network_g'] == {'pretrained': '/home/ada/dit', 'name': 'a~/b'}
    assert options['path'] == {'pretrain_network_g': None, 'resume_state': '/home/ada'}
    assert options['val']['metrics']['lpips']['weights'] == '/home/ada/alex.pth'
    assert options['benchmark'] == {'path': '/home/ada/mine'}


@pytest.mark.parametrize('value', ['$HOME/photos', '${DATA}/photos', 'sets/$NAME/HR'])
def test_variables_get_a_sentence_that_helps(value: str) -> None:
    with pytest.raises(
        InputError, match=r'x\.yml: extract\.save_dir: .* are not replaced; write the whole path, or ~/'
    ):
        expand_paths({'extract': {'save_dir': value}}, 'x.yml')


def test_prices_are_no_variables() -> None:
    assert expand_paths({'a': 'costs $5', 'b': '$HOME'}, 'x.yml') == {'a': 'costs $5', 'b': '$HOME'}


def test_tabs_get_a_sentence_that_helps(tmp_path: Path) -> None:
    (tmp_path / 'x.yml').write_text('extract:\n\tdataroot: photos\n')
    with pytest.raises(InputError, match=r'x\.yml, line 2: a tab stands where spaces belong; indent with spaces\.'):
        load_option_file(tmp_path / 'x.yml')


@pytest.mark.parametrize('name', ['..', '.', 'n' * 240, 'a/b', 'a\tb', '$HOME', '', '~'])
@pytest.mark.parametrize('command', ['train', 'test'])
def test_names_that_are_no_folders_are_refused(
    command: str,
    name: str,
    hr_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_options(tmp_path / 'x.yml', {**train_options(hr_folder), 'name': name})
    Path('experiments/kept').mkdir(parents=True)
    before = sorted(tmp_path.rglob('*'))
    assert main([command, '-opt', str(path)]) == 2
    err = capsys.readouterr().err
    assert 'x.yml: name: ' in err and err.count('basicsr: ') == 1 and 'Traceback' not in err
    assert sorted(tmp_path.rglob('*')) == before
