"""What a row costs: the stages that it needs, as long as what they made is what is there."""

import json
from pathlib import Path

from support import REPOSITORY

from basicsr_distill.benchmark.costs import read_cost, write_cost
from basicsr_distill.benchmark.sets import plan_sets
from basicsr_distill.config.benchmark_file import BenchmarkFile
from basicsr_distill.config.recipe import Recipe


def test_a_choice_of_real_patches_does_not_pay_for_the_denoiser(toy: Path) -> None:
    sets = {'medoids': {'select': {}}, 'drawn': {'sample': {}}, 'full': {'full': True}}
    (toy / 'options').symlink_to(REPOSITORY / 'options')
    file = BenchmarkFile.load(
        Path('toy.yml'),
        ['benchmark:recipe=options/distill/demo.yml', f'benchmark:sets={json.dumps(sets)}', 'benchmark:seeds=[0]'],
    )
    planned = {own.row: own for own in plan_sets(file, Path('experiments/toy'))}
    assert {row: own.stages_before for row, own in planned.items()} == {
        'medoids': ('extract', 'cluster'),
        'drawn': ('extract', 'cluster', 'finetune'),
        'full': ('extract',),
    }
    assert planned['drawn'].shared and planned['drawn'].shared.stages == ('extract', 'cluster', 'finetune')


def test_costs_are_those_of_what_is_there(toy: Path) -> None:
    recipe = Recipe.load(Path('pool.yml'))
    for stage in ('extract', 'select'):
        folder = Path(getattr(recipe, stage).save_dir)
        folder.mkdir()
        (folder / 'stage.json').write_text(json.dumps({'stage': stage}))
        write_cost(toy, recipe, stage, 2.5)
    assert read_cost(toy, recipe, ['extract']) == 2.5 and read_cost(toy, recipe, ['extract', 'select']) == 5
    (Path('set') / 'stage.json').write_text(json.dumps({'stage': 'select', 'made': 'elsewhere'}))
    assert read_cost(toy, recipe, ['extract', 'select']) is None and read_cost(toy, recipe, ['extract']) == 2.5
