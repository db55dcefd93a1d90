"""The paper's tables on a folder shaped like OST: what they would cost, and one column each, run at toy size."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from skimage import data
from sr_experiments import SMALL_NETWORKS
from support import REPOSITORY, save_rgb

from basicsr_distill.cli import main
from basicsr_distill.config.benchmark_file import BenchmarkFile
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.config.yaml_files import load_option_file

CLASSES = ('animal', 'building', 'grass', 'mountain', 'plant', 'sky', 'water')
SMALL_POOL = ['extract:patch_size=64', 'extract:stride=64']
SMALL_CLUSTERS = [*SMALL_POOL, 'extract:threshold=q60', 'cluster:encoder={type: texture}']
# For each recipe: the same stages at a size for a test, without anyone's weights.
SMALL_RECIPES = {
    'paper': [
        *SMALL_CLUSTERS,
        'network_g:pretrained=~',
        'network_g:tuning=full',
        'network_g:from_scratch={num_layers: 1, num_attention_heads: 2, attention_head_dim: 16, '
        'patch_size: 2, in_channels: 16, sample_size: 8, learn_variance: true}',
        'datasets:train:codec={type: block_pca, components: 16}',
        'datasets:train:num_worker_per_gpu=0',
        'train:total_iter=2',
        'train:scheduler:milestones=[2]',
        'sample:num_steps=2',
        'sample:scheduler=dpmsolver++',
    ],
    'gsdd': [
        *SMALL_CLUSTERS,
        'network_g:size_px=16',
        'train:total_iter=2',
        'train:scheduler:milestones=[2]',
        'train:generator=~',
        'train:generator_weights=~',
        'train:extractor={type: random_conv}',
        'datasets:train:batch_size_per_gpu=2',
        'datasets:train:num_worker_per_gpu=0',
    ],
    'coreset': [*SMALL_POOL, 'select:encoder={type: texture}'],
}


def small(network: dict[str, Any]) -> dict[str, Any]:
    """A network of a table with its width, batch and crop cut, and without losses that need weights."""
    options = load_option_file(REPOSITORY / network['opt'])
    networks = [key for key in ('network_g', 'network_d') if key in options]
    changes = [
        f'{network_key}:{key}={value}'
        for network_key in networks
        for key, value in SMALL_NETWORKS.get(options[network_key]['type'], {}).items()
    ]
    if 'network_d' in options:
        changes += ['train:perceptual_opt=~', 'path:pretrain_network_g=~']
    return {
        'opt': network['opt'],
        'force_yml': [
            *changes,
            'datasets:train:batch_size_per_gpu=2',
            'datasets:train:gt_size=64',
            'datasets:train:num_worker_per_gpu=0',
        ],
    }


@pytest.fixture
def table(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A benchmark file of the project with small recipes and networks; photographs where it looks for OST."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'options').symlink_to(REPOSITORY / 'options')
    for number, name in enumerate(CLASSES):
        top, left = 40 * number, 30 * number
        save_rgb(
            tmp_path / 'datasets/OST/train' / name / f'{name}_0.png',
            data.astronaut()[top : top + 128, left : left + 192],
        )
    save_rgb(tmp_path / 'datasets/OST_test/chelsea.png', data.chelsea()[100:164, 100:196])
    options = load_option_file(REPOSITORY / 'options' / 'benchmark' / f'{request.param}.yml')
    benchmark = options['benchmark']
    for row in benchmark['sets'].values():
        recipe = row.get('recipe', benchmark.get('recipe'))
        if 'path' not in row and recipe:
            row.update(
                recipe=recipe,
                force_yml=[*row.get('force_yml', benchmark.get('force_yml', [])), *SMALL_RECIPES[Path(recipe).stem]],
            )
        if 'encoder' in (row.get('select') or {}):
            row['select']['encoder'] = {'type': 'texture'}
    benchmark['networks'] = {name: small(network) for name, network in benchmark['networks'].items()}
    benchmark['metrics'] = [metric for metric in benchmark['metrics'] if metric != 'lpips']
    benchmark['jobs'] = {'processes': 1}
    return options


def run(options: dict[str, Any], *arguments: str) -> int:
    Path('table.yml').write_text(yaml.safe_dump(options, sort_keys=False))
    return main(['benchmark', '-opt', 'table.yml', *arguments])


@pytest.mark.slow
@pytest.mark.parametrize(
    ('table', 'cells'),
    [('table1_OST', 2 * (3 * 2 * 6 + 3 * 2)), ('table2_OST', 4 * (3 * 6 + 6)), ('table3_OST', 3 * 3 * 5)],
    indirect=['table'],
)
def test_a_dry_run_counts_cells_and_costs(
    table: dict[str, Any], cells: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob('*'))
    assert run(table, '--dry-run') == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert len([line for line in lines if 'iterations, ' in line]) == cells
    assert f'{cells} cells on' in lines[-1] and 'not measured' not in printed
    for network in table['benchmark']['networks']:
        assert any(line.startswith(f'{network}: ') and 's an iteration' in line for line in lines)
    assert [path for path in sorted(tmp_path.rglob('*')) if path not in before] == [tmp_path / 'table.yml']


@pytest.mark.long
@pytest.mark.parametrize(
    'table',
    ['table3_OST', *[pytest.param(name, marks=pytest.mark.slow) for name in ('table1_OST', 'table2_OST')]],
    indirect=True,
)
def test_one_column_runs(table: dict[str, Any], tmp_path: Path) -> None:
    """Seven images, one seed, the first network of the file, two iterations."""
    benchmark = table['benchmark']
    first = next(iter(benchmark['networks']))
    benchmark.update(counts=[7], seeds=[0], networks={first: benchmark['networks'][first]})
    benchmark['budget'] = {key: 2 + number for number, key in enumerate(benchmark['budget'])}
    assert run(table) == 0
    root = tmp_path / 'experiments' / table['name']
    rows = list(csv.DictReader((root / 'results.csv').open()))
    schedules = 2 if 'full_total_iter' in benchmark['budget'] else 1
    expected = [
        (name, metric)
        for name, row in benchmark['sets'].items()
        for _ in range(schedules if row.get('full') else 1)
        for metric in benchmark['metrics']
    ]
    assert sorted((row['set'], row['metric']) for row in rows) == sorted(expected)
    assert {row['count'] for row in rows} == {'7'}  # the full pool has seven photographs here
    weights = root / 'cells' / f'{rows[0]["set"]}__7_s0__{first}_t0'
    state = torch.load(next(weights.rglob('net_g_latest.pth')), weights_only=True)
    assert all(torch.isfinite(value).all() for value in next(iter(state.values())).values())
    assert (root / 'report.html').is_file()
    pools = {row['set']: row['pool'] for row in rows}
    if 'random' in pools:  # every window of the seven photographs, and those under the threshold
        assert '42 of 42 windows (all)' in pools['random'] and '25 of 42 windows' in pools['threshold']


def test_every_row_of_real_patches_that_rivals_a_drawn_set_is_of_one_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """All windows, and one band of them; the rows of other recipes are drawn."""
    monkeypatch.chdir(REPOSITORY)
    sets = load_option_file(Path('options/benchmark/rival_DIV2K.yml'))['benchmark']['sets']
    assert not [name for name, row in sets.items() if 'select' in row and 'recipe' in row]
    file = BenchmarkFile.load(Path('options/benchmark/rival_DIV2K.yml'))
    recipe = Recipe.load(Path(str(file.options.recipe)), file.options.force_yml)
    assert recipe.extract and recipe.select
    assert (recipe.extract.threshold, recipe.extract.deduplicate, recipe.extract.drop_hardest) == ('q100', 'off', 0)
    assert recipe.select.band == (0.05, 0.5) and not [row for row in sets.values() if 'band' in row.get('select', {})]
