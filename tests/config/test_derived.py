"""What follows from the rest of a recipe, against recipes that state it."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from support import REPOSITORY

from basicsr_distill.config.experiment import to_experiment
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.config.yaml_files import load_option_file
from basicsr_distill.errors import InputError

FOLDERS = {'extract': 'patches', 'cluster': 'clusters', 'select': 'selected', 'sample': 'distilled'}


def short(name: str) -> dict[str, Any]:
    return load_option_file(REPOSITORY / 'options' / 'distill' / f'{name}.yml')


def stated(name: str, root: str, **network: int) -> dict[str, Any]:
    """A shipped recipe with everything that it leaves out, under another root."""
    options = deepcopy(short(name))
    for stage, folder in FOLDERS.items():
        if stage in options:
            options[stage]['save_dir'] = f'{root}/{folder}'
    for stage in {'extract', 'select', 'sample'} & options.keys():
        options[stage]['scale'] = 4
    for section in options['datasets'].values():
        section.update(name='x', dataroot=f'{root}/patches', labels_file=f'{root}/clusters/labels.csv')
    options['network_g'].update(network)
    return options


@pytest.mark.parametrize(
    ('name', 'network'),
    [
        ('demo', {'num_labels': 5}),
        ('ablation', {'num_labels': 7}),
        ('gsdd_demo', {'num_labels': 5, 'images_per_label': 8}),
        ('mgd3', {'num_labels': 7}),
    ],
)
def test_a_recipe_that_leaves_it_out_is_one_that_states_it(name: str, network: dict[str, int]) -> None:
    left_out, given = (
        Recipe.parse(Path('x.yml'), options) for options in (short(name), stated(name, f'datasets/{name}', **network))
    )
    assert [getattr(left_out, stage) for stage in FOLDERS] == [getattr(given, stage) for stage in FOLDERS]
    assert left_out.scale == given.scale == 4
    assert left_out.experiment and given.experiment
    assert left_out.experiment.networks == given.experiment.networks
    for phase, section in given.experiment.datasets.items():
        assert left_out.experiment.datasets[phase].model_copy(update={'name': 'x'}) == section  # type: ignore[union-attr]


def test_what_a_recipe_states_stays(tmp_path: Path) -> None:
    options = stated('demo', 'elsewhere', num_labels=9)
    recipe = Recipe.parse(Path('x.yml'), options)
    recipe.check_agreement()
    assert recipe.extract and recipe.extract.save_dir == 'elsewhere/patches'
    assert recipe.options['network_g']['num_labels'] == 9
    assert options == stated('demo', 'elsewhere', num_labels=9)  # nothing is written into what was given


def test_another_name_and_other_photographs_are_another_recipe() -> None:
    recipe = Recipe.load(
        REPOSITORY / 'options/distill/demo.yml', ['name=mine', 'extract:dataroot=photos', 'scale=2', 'select=~']
    )
    recipe.check_agreement()
    assert recipe.extract and recipe.sample and recipe.select is None
    assert (recipe.extract.save_dir, recipe.extract.scale) == ('datasets/mine/patches', 2)
    assert (recipe.sample.save_dir, recipe.sample.scale) == ('datasets/mine/distilled', 2)
    assert recipe.options['datasets']['train']['labels_file'] == 'datasets/mine/clusters/labels.csv'


def test_a_file_of_stages_alone_is_called_by_its_name() -> None:
    recipe = Recipe.parse(
        Path('holiday.yml'), {'extract': {'dataroot': 'photos', 'scale': 2}, 'select': {'num_images': 3}}
    )
    assert recipe.select and recipe.extract
    assert (recipe.extract.save_dir, recipe.select.save_dir) == (
        'datasets/holiday/patches',
        'datasets/holiday/selected',
    )
    assert recipe.select.scale == recipe.scale == 2


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            ['datasets:train:dataroot=other'],
            r'datasets\.train\.dataroot: is other, but this recipe makes datasets/demo',
        ),
        (['datasets:train:labels_file=other.csv'], r'datasets\.train\.labels_file: is other\.csv'),
        (['extract:scale=2'], r'extract\.scale is 2, select\.scale is 4, sample\.scale is 4, scale is 4'),
        (['network_g:num_labels=4'], r'network_g\.num_labels: is 4, but cluster\.num_clusters is 5'),
    ],
)
def test_a_contradiction_is_refused(changes: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recipe.load(REPOSITORY / 'options/distill/demo.yml', changes).check_agreement()


def test_the_folders_of_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """BasicSR's dictionary gets what was derived."""
    monkeypatch.chdir(tmp_path)
    Path('datasets/demo/patches').mkdir(parents=True)
    Path('datasets/demo/clusters').mkdir()
    experiment = to_experiment(Recipe.load(REPOSITORY / 'options/distill/demo.yml'), is_train=True, root=tmp_path)
    assert experiment.opt['datasets']['train']['dataroot'] == 'datasets/demo/patches'
    assert experiment.opt['network_g']['num_labels'] == 5
