"""A run that is refused moves nothing and makes nothing."""

import os
from pathlib import Path

import pytest
import torch
from latent_recipe import make_stages, recipe
from sr_experiments import TINY_EDSR, log_text, train_here, train_options, write_options

from basicsr_distill.config.experiment import to_experiment
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.errors import InputError
from basicsr_distill.training import test as test_loop
from basicsr_distill.training.folders import archive


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def tree() -> list[tuple[str, int]]:
    return [
        (str(path), path.stat().st_mtime_ns)
        for folder in ('experiments', 'results')
        if Path(folder).is_dir()
        for path in sorted(Path(folder).rglob('*'))
    ]


def save_other_weights() -> str:
    torch.save({'params': {'conv.weight': torch.zeros(3)}}, 'other.pth')
    return 'other.pth'


def test_weights_that_do_not_fit_leave_the_earlier_training_where_it_is(hr_folder: Path) -> None:
    options = train_options(hr_folder, total_iter=2)
    train_here(options)
    before = tree()
    options['path'] = {'pretrain_network_g': save_other_weights()}
    with pytest.raises(InputError, match='does not fit EDSR'):
        train_here(options)
    assert tree() == before


def test_weights_that_do_not_fit_leave_the_earlier_results_where_they_are(hr_folder: Path) -> None:
    train_here(train_options(hr_folder, total_iter=2))
    options = {
        'name': 'tiny',
        'model_type': 'SRModel',
        'scale': 4,
        'num_gpu': 0,
        'network_g': dict(TINY_EDSR),
        'datasets': {'test': {'name': 'hr', 'type': 'DistilledPatchDataset', 'dataroot_gt': str(hr_folder)}},
        'path': {'pretrain_network_g': 'experiments/tiny/models/net_g_latest.pth'},
    }

    def run_test() -> None:
        path = write_options(Path('test.yml'), options)
        test_loop.test(to_experiment(Recipe.load(path), is_train=False, root=Path.cwd()))

    run_test()
    before = tree()
    options['path'] = {'pretrain_network_g': save_other_weights()}
    with pytest.raises(InputError, match='does not fit EDSR'):
        run_test()
    assert tree() == before


@pytest.mark.parametrize('earlier', [True, False])
def test_what_only_the_first_batch_shows_puts_the_earlier_training_back(tmp_path: Path, earlier: bool) -> None:
    """The shape of the latents is known once the patches are encoded, into the experiment's own folder."""
    make_stages(tmp_path)
    options = recipe(tmp_path)
    if earlier:
        train_here(options)
    before = [entry for entry in tree() if entry[0] != 'experiments']
    options['network_g']['from_scratch']['sample_size'] = 8
    with pytest.raises(InputError, match='takes latents of shape'):
        train_here(options)
    assert [entry for entry in tree() if entry[0] != 'experiments'] == before


def test_what_is_said_before_the_log_exists_is_in_it(hr_folder: Path) -> None:
    options = train_options(hr_folder, total_iter=2)
    train_here(options)
    options['num_gpu'] = 99
    train_here(options)
    log = log_text('tiny')
    assert '99 is asked for' in log and 'Network [EDSR] is created' in log and 'is moved to' in log
    assert 'type: Adam' in log, 'the options are those of the file, not what BasicSR leaves of them'


def test_two_archives_within_a_second(tmp_path: Path) -> None:
    places = []
    for number in range(3):
        (tmp_path / 'run').mkdir()
        (tmp_path / 'run' / str(number)).touch()
        places.append(archive(tmp_path / 'run'))
    assert len(set(places)) == 3 and all(
        (place / str(number)).is_file() for number, place in enumerate(places) if place
    )


@pytest.mark.parametrize('denied', ['tiny', 'models'])
def test_the_folder_of_another_user_is_one_sentence(
    hr_folder: Path, monkeypatch: pytest.MonkeyPatch, denied: str
) -> None:
    """Nothing is forbidden to the superuser, as whom tests may run: what the system would say is put into its mouth."""
    options = train_options(hr_folder, total_iter=2)
    train_here(options)
    before = tree()
    monkeypatch.setattr(os, 'access', lambda path, mode: Path(path).name != denied)
    with pytest.raises(InputError, match=rf'tiny\.yml: name: \S*{denied} may not be read and written by this user'):
        train_here(options)
    assert tree() == before
