"""Option files read whole: what is wrong is one sentence, whatever it is and at whatever level."""

import difflib
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from published_configurations import CONFIGURATIONS
from support import REPOSITORY

from basicsr_distill.cli import main
from basicsr_distill.config.experiment import to_experiment
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.config.yaml_files import load_option_file
from basicsr_distill.errors import InputError
from basicsr_distill.stages.pipeline import distill
from basicsr_distill.training.keys import check_components

OPTIONS = REPOSITORY / 'options'
ABLATION = OPTIONS / 'distill' / 'ablation.yml'
# Names that the user chooses: a misspelt one is another name.
FREE_NAMES = ('val.metrics', 'datasets')


def check(options: dict[str, Any]) -> Recipe:
    recipe = Recipe.parse(Path('x.yml'), options)
    check_components(recipe)
    return recipe


# Misspelt keys --------------------------------------------------------------------------------------------------------


def places(options: dict[str, Any], where: str = '') -> Iterator[tuple[str, str]]:
    """Every key of a file and the section that it is in."""
    for key, value in options.items():
        yield where, key
        if isinstance(value, dict):
            yield from places(value, f'{where}.{key}' if where else key)


def section_at(options: dict[str, Any], where: str) -> dict[str, Any]:
    for part in filter(None, where.split('.')):
        options = options[part]
    return options


def misspelt(key: str, draw: random.Random) -> str:
    """One letter dropped, doubled or swapped with the next."""
    at = draw.randrange(len(key))
    kinds = [key[:at] + key[at] + key[at:]]
    if len(key) > 1:
        kinds.append(key[:at] + key[at + 1 :])
    if at + 1 < len(key) and key[at] != key[at + 1]:
        kinds.append(key[:at] + key[at + 1] + key[at] + key[at + 2 :])
    return draw.choice(kinds)


def similarity(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a, b).ratio()


def why_it_passes(where: str, wrong: str, options: dict[str, Any]) -> str | None:
    """The stated reasons."""
    if where in FREE_NAMES and (where == 'val.metrics' or wrong.split('_')[0] in ('train', 'val', 'test')):
        return 'a name that the user chooses'
    return 'another key of the section' if wrong in section_at(options, where) else None


def test_a_misspelt_key_at_any_level_of_any_file_is_refused_with_the_nearest() -> None:
    """As many draws at every level, so that it says the same whatever files are added."""
    draw = random.Random(0)
    files = {path: load_option_file(path) for path in sorted(OPTIONS.rglob('*.yml')) if path.parent.name != 'benchmark'}
    levels: dict[str, list[tuple[Path, str, str]]] = {}
    for path, options in files.items():
        for where, key in places(options):
            levels.setdefault(where.split('.')[0] + ('.*' if where.count('.') else ''), []).append((path, where, key))
    assert {
        '',
        'datasets.*',
        'network_g',
        'path',
        'train',
        'train.*',
        'val',
        'val.*',
        'logger',
        'extract',
        'cluster',
        'select',
        'sample',
        'sample.*',
    } <= set(levels)
    for level, found in levels.items():
        passed = 0
        for path, where, key in draw.choices(found, k=20):
            wrong = misspelt(key, draw)
            if why_it_passes(where, wrong, files[path]):
                passed += 1
                continue
            options = deepcopy(files[path])
            section = section_at(options, where)
            renamed = {wrong if name == key else name: value for name, value in section.items()}
            section.clear()
            section.update(renamed)
            with pytest.raises(InputError) as error:
                check(options)
            message = str(error.value)
            assert '\n' not in message
            if f"'{key}'" not in message:
                # Where the letter is missing in which two keys differ (optim_), either is the nearest.
                nearest = re.search(r"did you mean '(?:.*\.)?([^'.]+)'", message)
                assert nearest and similarity(wrong, nearest[1]) >= similarity(wrong, key), (path, where, message)
        assert passed < 20 or level in FREE_NAMES, level


@pytest.mark.parametrize('name', CONFIGURATIONS)
def test_published_files_pass(name: str) -> None:
    check(deepcopy(CONFIGURATIONS[name]))


def test_a_model_or_dataset_without_a_section_here_reads_what_it_likes() -> None:
    """BasicSR's own for video and faces are such."""
    options = deepcopy(CONFIGURATIONS['train_EDSR_Mx4.yml'])
    options.update(model_type='EDVRModel', lq='x')
    options['train'].update(tsa_iter=50000, dcn_lr_mul=1)
    options['val']['center_frame_only'] = True
    options['datasets']['train'].update(type='REDSDataset', interval_list=[1])
    check(options)
    options['train']['pixel_opt']['typ'] = options['train']['pixel_opt'].pop('type')
    with pytest.raises(InputError, match=r"x\.yml: train\.pixel_opt: key 'type' is missing"):
        check(options)


# Sections and values of the wrong kind --------------------------------------------------------------------------------

SECTIONS = (
    'extract',
    'cluster',
    'cluster:encoder',
    'sample',
    'sample:init',
    'datasets',
    'datasets:train',
    'datasets:train:codec',
    'datasets:train:io_backend',
    'datasets:val',
    'network_g',
    'network_g:from_scratch',
    'network_d',
    'path',
    'train',
    'train:optim_g',
    'train:scheduler',
    'train:pixel_opt',
    'train:perceptual_opt',
    'train:perceptual_opt:layer_weights',
    'train:high_frequency_opt',
    'val',
    'val:metrics',
    'val:metrics:psnr',
    'val:tile',
    'logger',
    'logger:wandb',
    'dist_params',
)
VALUES = ('word', [1], 7, 1.5, True, {}, {'key': 1}, None)


@pytest.mark.parametrize(
    'file', ['distill/ablation.yml', 'train/RealSR/train_RealSR_x4_DIV2K.yml', 'test/SwinIR/test_SwinIR_x4.yml']
)
@pytest.mark.parametrize('place', SECTIONS)
def test_a_section_of_any_kind_is_accepted_or_refused_in_one_sentence(
    file: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('os.path.exists', lambda path: True)
    monkeypatch.setattr(Path, 'is_file', lambda path: True)
    for value in VALUES:
        options = load_option_file(OPTIONS / file)
        *parents, leaf = place.split(':')
        try:
            section_at(options, '.'.join(parents))
        except KeyError:
            continue  # the file has no such section
        section_at(options, '.'.join(parents))[leaf] = value
        try:
            to_experiment(check(options), is_train=not file.startswith('test'), root=Path('.'))
        except InputError as error:
            assert '\n' not in str(error) and str(error).startswith('x.yml'), str(error)


@pytest.mark.parametrize(
    'key',
    [
        'name',
        'model_type',
        'scale',
        'num_gpu',
        'manual_seed',
        'path:pretrain_network_g',
        'path:strict_load_g',
        'train:total_iter',
        'val:val_freq',
        'val:save_img',
        'logger:print_freq',
        'datasets:train:name',
        'datasets:train:type',
        'datasets:train:batch_size_per_gpu',
    ],
)
def test_a_value_of_a_wrong_kind_is_one_sentence(key: str) -> None:
    options = load_option_file(ABLATION)
    *parents, leaf = key.split(':')
    section_at(options, '.'.join(parents))[leaf] = {'a': [1]}
    with pytest.raises(InputError, match=rf'x\.yml: .*{leaf}') as error:
        check(options)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('entry', 'message'),
    [
        ('cluster={num_clusters: 0}', 'cluster: num_clusters: '),
        ('cluster=7', 'cluster: must be a mapping'),
        ('extract=none', "section 'extract' is missing"),
        ('cluster=none', 'network_g: num_labels: field required'),
        ('scale=x4', 'scale: .*valid integer'),
        ('path=foo', 'path: must be a mapping'),
        ('datasets=[1]', 'datasets: must be a mapping'),
        ('name=..', "name: '..' must be a plain folder name"),
        ('num_gpu=many', r'yml: num_gpu: input should be'),
        ('cluster:num_clusters=few', r'cluster: num_clusters: input should be'),
    ],
)
@pytest.mark.parametrize('command', ['distill', 'train'])
def test_commands_answer_in_one_line(
    command: str,
    entry: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    stages = ['--stage', 'extract', 'cluster', 'finetune', 'sample'] if command == 'distill' else []
    assert main([command, '-opt', str(ABLATION), '--force_yml', entry, *stages]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and str(ABLATION) in said[0]
    # To a training the stages are nothing: without them it misses the patches.
    assert re.search(
        'datasets/ablation/patches does not exist' if command == 'train' and entry == 'extract=none' else message,
        said[0],
    )
    assert list(tmp_path.iterdir()) == []


def test_null_switches_any_section_off() -> None:
    recipe = Recipe.load(ABLATION, ['datasets:val=none', 'sample=none'])
    assert recipe.stages == ('extract', 'cluster', 'finetune') and recipe.sample is None
    assert recipe.experiment is not None and list(recipe.experiment.datasets) == ['train']
    check_components(recipe)


@pytest.mark.parametrize(
    'name', ['.', '..', '.hidden', 'a/b', '/a', 'a\\b', 'a\tb', 'a\nb', 'a\x00b', ' a', 'a ', '', 'x' * 201, 'é' * 101]
)
def test_names_that_are_no_plain_folder_names(name: str) -> None:
    with pytest.raises(InputError, match='must be a plain folder name') as error:
        Recipe.parse(Path('x.yml'), {**load_option_file(ABLATION), 'name': name})
    assert '\n' not in str(error.value)


def test_a_name_may_have_dots_spaces_and_letters_of_any_script() -> None:
    for name in ('203_EDSR_Mx4_v1.5', 'two words', 'großes_Modell', 'x' * 200):
        assert Recipe.parse(Path('x.yml'), {**load_option_file(ABLATION), 'name': name}).name == name


def test_variables_of_the_shell_get_a_sentence_that_helps() -> None:
    with pytest.raises(InputError, match='variables of the shell are not replaced in option files'):
        Recipe.load(ABLATION, ['name=$HOME'])


# Recipes of stages alone ----------------------------------------------------------------------------------------------

STAGES_ALONE = {
    'name': 'alone',
    'scale': 4,
    'extract': {'dataroot': 'photos', 'save_dir': 'out/patches'},
    'cluster': {'encoder': {'type': 'texture'}, 'save_dir': 'out/clusters'},
}


def test_a_recipe_of_stages_alone() -> None:
    recipe = Recipe.parse(Path('x.yml'), STAGES_ALONE)
    assert recipe.stages == ('extract', 'cluster') and recipe.experiment is None and recipe.name == 'alone'
    assert Recipe.parse(Path('some/set.yml'), {'extract': STAGES_ALONE['extract']}).name == 'set'
    for stages in (('finetune',), ('sample',), ('extract', 'cluster', 'finetune', 'sample')):
        with pytest.raises(InputError, match='is missing'):
            distill(recipe, stages)
    with pytest.raises(InputError, match="unknown key 'extrct'; did you mean 'extract'"):
        Recipe.parse(Path('x.yml'), {'extrct': STAGES_ALONE['extract'], 'cluster': STAGES_ALONE['cluster']})
    with pytest.raises(InputError, match="key 'model_type' is missing; an option file is"):
        Recipe.parse(Path('x.yml'), {'name': 'x'})


def test_reading_a_file_is_quick_and_needs_no_torch() -> None:
    script = (
        'import sys\nfrom basicsr_distill.cli import main\n'
        f'assert main(["train", "-opt", {str(ABLATION)!r}, "--force_yml", "sample:num_stpes=3"]) == 2\n'
        'sys.exit(any(name in sys.modules for name in ("torch", "basicsr", "numpy")))'
    )
    result = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert result.returncode == 0 and "did you mean 'num_steps'" in result.stderr
