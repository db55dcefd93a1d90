"""docs/SWAP_IN.md: the changes it prints are applied to the published option files, which then train."""

import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from published_configurations import CONFIGURATIONS, yaml_text
from sr_experiments import SlimVgg19, make_surroundings, save_slim_vgg19, shrink
from support import REPOSITORY

from basicsr_distill.config.experiment import to_experiment
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.config.yaml_files import read_option_file
from basicsr_distill.errors import InputError
from basicsr_distill.training import train as train_loop
from basicsr_distill.training.keys import check_components

pytestmark = pytest.mark.long  # only `bash scripts/test.sh --all` and CI run it

GUIDE = REPOSITORY / 'docs' / 'SWAP_IN.md'


def changes() -> list[tuple[str, list[str]]]:
    """File and hunks of each way to change it: headings name files, prose parts the ways."""
    found = []
    for section in re.split(r'^### ', GUIDE.read_text(encoding='utf-8'), flags=re.MULTILINE)[1:]:
        name, text = section.split('\n', 1)
        text = re.split(r'^## ', text, flags=re.MULTILINE)[0]
        for way in re.findall(r'(?:```diff\n.*?```\n)+', text, flags=re.DOTALL):
            found.append((name, re.findall(r'```diff\n(.*?)```', way, flags=re.DOTALL)))
    return found


def apply(text: str, hunk: str) -> str:
    """A hunk without line numbers; what it removes must be there, once or first."""
    removed = ''.join(line[1:] + '\n' for line in hunk.splitlines() if line[0] in ' -')
    added = ''.join(line[1:] + '\n' for line in hunk.splitlines() if line[0] in ' +')
    assert f'\n{removed}' in text, removed
    return text.replace(removed, added, 1)


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('torchvision.models.vgg.vgg19', SlimVgg19)
    save_slim_vgg19()


def train_two_iterations(path: Path) -> None:
    options = shrink(read_option_file(path))
    make_surroundings(options)
    train_loop.train(to_experiment(Recipe.parse(path, options), is_train=True, root=Path.cwd()))
    state = torch.load(f'experiments/{options["name"]}/training_states/2.state', weights_only=True)
    assert state['iter'] == 2
    validated = {section['name'] for phase, section in options['datasets'].items() if phase != 'train'}
    assert set(state.get('best_metric_results', {})) == validated


@pytest.mark.parametrize(
    ('name', 'hunks'),
    [pytest.param(*change, id=f'{change[0].removesuffix(".yml")}-{number}') for number, change in enumerate(changes())],
)
def test_a_published_file_trains_after_the_change(name: str, hunks: list[str], tmp_path: Path) -> None:
    text = yaml_text(name)
    for hunk in hunks:
        text = apply(text, hunk)
    path = tmp_path / name
    path.write_text(text)
    train_two_iterations(path)


def test_every_published_file_is_in_the_guide() -> None:
    names = [name for name, _ in changes()]
    assert set(names) == set(CONFIGURATIONS)
    # The blind file keeps its dataset's type: there is one way.
    assert {name for name in names if names.count(name) == 1} == {'train_realesrgan_x4plus.yml'}


def test_one_way_is_the_type_and_the_folder_alone() -> None:
    """But for what is wrong in the published files themselves."""
    for name, hunks in changes():
        if 'DistilledPatchDataset' in ''.join(hunks):
            added = [line.split(':')[0].strip('+ ') for hunk in hunks for line in hunk.splitlines() if line[0] == '+']
            adapted = {'train_RCAN_x2.yml': {'upscale'}}.get(name, {'name'} if 'SRFormer' in name else set())
            assert set(added) == {'type', 'dataroot_gt'} | adapted, name


def test_requests_for_a_gpu_are_no_obstacle(tmp_path: Path) -> None:
    text = yaml_text('train_EDSR_Mx4.yml')
    assert 'num_gpu: 1\n' in text
    path = tmp_path / 'x.yml'
    path.write_text(apply(apply(text, '-    prefetch_mode: null\n+    prefetch_mode: cuda\n'), changes()[0][1][0]))
    train_two_iterations(path)


def test_old_names_of_keys_are_answered_with_todays(tmp_path: Path) -> None:
    text = apply(yaml_text('train_EDSR_Mx4.yml'), changes()[0][1][0])
    path = tmp_path / 'x.yml'
    path.write_text(text.replace('use_hflip: true', 'use_flip: true'))
    with pytest.raises(InputError, match="unknown key 'use_flip'; did you mean 'use_hflip'"):
        train_two_iterations(path)


def other_sets() -> list[str]:
    """Commands of the section on other sets."""
    section = GUIDE.read_text(encoding='utf-8').split('\n## Another set\n')[1]
    return re.findall(r'^basicsr .*', section, flags=re.MULTILINE)


@pytest.mark.parametrize('command', other_sets(), ids=lambda command: command.split('name=')[1].split()[0])
def test_a_file_of_ours_takes_another_set(command: str) -> None:
    _, name, _, path, _, *changes = shlex.split(command)
    options = read_option_file(REPOSITORY / path, changes)
    recipe = Recipe.parse(Path('other.yml'), options)
    check_components(recipe)
    if name == 'distill':
        assert recipe.sample and recipe.sample.save_dir == f'datasets/{recipe.name}/distilled'
        return
    options = shrink(options)
    make_surroundings(options)
    Path('other.yml').write_text(yaml.safe_dump(options))
    train_loop.train(to_experiment(Recipe.parse(Path('other.yml'), options), is_train=True, root=Path.cwd()))
    assert Path(f'experiments/{options["name"]}/training_states/2.state').is_file()
