"""The tables of simulated results: what they say of gains, single sets, the pool's distance, priors and failures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from simulated import SimulatedRow, benchmark_options, simulated_results

from basicsr_distill.benchmark.results import Results
from basicsr_distill.benchmark.sets import PlannedSet
from basicsr_distill.benchmark.tables import (
    failed_table,
    headline_tables,
    prior_of,
    set_table,
    value_tables,
    worst_table,
)
from basicsr_distill.config.yaml_files import load_option_file

RANDOM = (27.0, 27.1, 26.9, 27.05, 26.95)
REPOSITORY = Path(__file__).parents[2]


def drawn(name: str, values: tuple[float, ...], **facts: Any) -> SimulatedRow:
    return SimulatedRow(name, {(seed, seed): value for seed, value in enumerate(values)}, **facts)


def shifted(name: str, by: float, noise: float = 0.0, **facts: Any) -> SimulatedRow:
    return drawn(name, tuple(value + by + noise * (-1) ** seed for seed, value in enumerate(RANDOM)), **facts)


def random_row(values: tuple[float, ...] = RANDOM) -> SimulatedRow:
    return drawn('random', values, is_real=True, select={'method': 'random'})


def full_rows(value: float) -> list[SimulatedRow]:
    """The full pool at equal steps and at its own schedule, three trainings each."""
    return [
        SimulatedRow(
            'full', {(None, seed): value + by + 0.01 * seed for seed in range(3)}, is_full=True, own_schedule=by > 0
        )
        for by in (0, 1)
    ]


def headline(
    rows: list[SimulatedRow], metrics: tuple[str, ...] = ('psnr_y',), bicubic: float = 25.0
) -> dict[str, dict[str, str]]:
    """Cells of the headline table, by row and column."""
    options = benchmark_options(list(dict.fromkeys(row.name for row in rows)), full=['full'], metrics=metrics)
    table = headline_tables(options, simulated_results(rows, metric=metrics[0], bicubic=bicubic))[0]
    assert "Student's 95% interval" in table.title
    return {name: dict(zip(table.header[1:], cells)) for name, *cells in table.rows}


GAIN = 'gain over the best real row'


def test_claims_and_their_reasons() -> None:
    cells = headline(
        [
            random_row(),
            shifted('medoids', -0.02, 0.05, is_real=True),
            shifted('better', 0.5, 0.01),
            shifted('worse', -0.5, 0.01),
            shifted('alike', 0.01, 0.03),
        ]
    )
    assert cells['better'][GAIN].endswith('], better') and cells['better']['sets'] == '5'
    assert cells['worse'][GAIN].endswith('], worse')
    assert cells['alike'][GAIN].endswith('], inside the spread')
    assert cells['random'][GAIN] == 'has the best mean of the real rows'
    assert headline([random_row()])['random'][GAIN] == 'is the best real row'


@pytest.mark.parametrize(
    ('sets', 'ending'),
    [
        (1, '+0.50 (1 set: no interval)'),
        (2, '+0.50 (2 sets: no interval)'),
        (3, '], no claim by 3 sets'),
        (5, '], better'),
    ],
)
def test_a_claim_needs_five_sets(sets: int, ending: str) -> None:
    ours = tuple(value + 0.5 + 0.001 * (-1) ** seed * (sets > 2) for seed, value in enumerate(RANDOM[:sets]))
    assert headline([random_row(RANDOM[:sets]), drawn('drawn', ours)])['drawn'][GAIN].endswith(ending)


def test_trainings_of_one_set_are_one_set() -> None:
    row = SimulatedRow('drawn', {(0, seed): 28 + 0.1 * seed for seed in range(3)})
    cells = headline([SimulatedRow('random', {(0, seed): 27.0 for seed in range(3)}, is_real=True), row])
    assert cells['drawn']['PSNR on Y, dB'] == '28.10 (one set)' and cells['drawn']['sets'] == '1'
    assert cells['drawn'][GAIN] == '+1.10 (1 set: no interval)'


def test_single_sets_are_placed() -> None:
    path = SimulatedRow('path', {(None, seed): 28 + 0.01 * seed for seed in range(5)})
    near = SimulatedRow('near', {(None, 0): 27.1})
    cells = headline([random_row(), path, near, *full_rows(27.05)])
    assert cells['path'][GAIN] == '+1.02, outside the sets' and cells['path']['PSNR on Y, dB'] == '28.02 (one set)'
    assert cells['near'][GAIN] == '+0.10, among the sets'
    assert cells['random']['against full'] == '-0.06, among the sets'
    assert cells['random']['against full, 20 iterations'] == '-1.06, outside the sets'
    assert cells['path']['against full'] == '+0.96 (1 set: no interval)'


def test_the_gain_over_random_as_a_share() -> None:
    """(P - P_random) / (P_full - P_bicubic), the full pool at equal steps."""
    cells = headline([random_row(), shifted('drawn', 0.5), *full_rows(27.0)], bicubic=25.01)
    assert cells['drawn']['IOR'] == f'{0.5 / (27.01 - 25.01):+.2f}' == '+0.25' and cells['random']['IOR'] == '+0.00'
    lpips = headline([random_row((0.5, 0.5)), drawn('drawn', (0.4, 0.4)), *full_rows(0.29)], ('lpips',), bicubic=0.7)
    assert lpips['drawn']['IOR'] == f'{(0.4 - 0.5) / (0.3 - 0.7):+.2f}' == '+0.25'


@pytest.mark.parametrize(
    'rows',
    [
        [random_row(), shifted('drawn', 0.5)],
        [drawn('medoids', RANDOM, is_real=True, select={'method': 'medoids'}), *full_rows(27.0)],
        [random_row(), *full_rows(24.0)],  # the pool is no better than interpolation
        [random_row(), full_rows(27.0)[1]],  # not at equal steps
    ],
)
def test_without_what_it_is_made_of_there_is_no_share(rows: list[SimulatedRow]) -> None:
    assert 'IOR' not in next(iter(headline(rows).values()))


def test_full_has_a_column_of_its_own() -> None:
    rows = [random_row(), *full_rows(27.5)]
    options = benchmark_options(['random', 'full'], counts=(7, 70), full=['full'])
    table = worst_table(options, simulated_results(rows))
    assert table.header == ('set', 'edsr, 7', 'edsr, 70', 'edsr, all')
    assert table.rows == (
        ('random', '26.90', '', ''),
        ('full', '', '', '27.50'),
        ('full, 20 iterations', '', '', '28.50'),
    )


def test_a_row_without_a_result_is_listed_by_name() -> None:
    options = benchmark_options(['odd', 'random', 'stuck'])
    results = simulated_results([random_row()])
    values = value_tables(options, results)[0]
    assert values.rows[0] == ('odd', '') and values.rows[1] == ('random', '**27.00 ± 0.08**')
    assert (
        '| odd |  |' in values.markdown()
        and 'odd &  ' in values.latex()
        and r'\textbf{27.00 $\pm$ 0.08}' in values.latex()
        and '<th scope="row">odd</th><td></td>' in values.html()
    )
    failed = [
        'odd, stuck: recipe a.yml (exit code 2): no photographs',
        'set odd__7_s0 (exit code 1): killed',
        'set oddly__7_s0 (exit code 1): not this row',
    ]
    table = failed_table(options, results, failed)
    assert table is not None and table.rows == (('odd', f'{failed[0]} and 1 more'), ('stuck', failed[0]))
    assert failed_table(benchmark_options(['random']), results, []) is None
    nothing = Results(4, [], {})
    assert headline_tables(options, nothing)[0].rows == () and set_table(options, nothing).rows == ()
    assert worst_table(options, nothing).rows == (('odd', ''), ('random', ''), ('stuck', ''))


POOL = {'name': 'pool', 'scale': 4, 'extract': {'dataroot': 'photos', 'save_dir': 'patches'}}
CLIP = {'type': 'open_clip', 'name': 'ViT-B-32', 'pretrained': 'openai'}


def planned(options: Mapping[str, Any], *stages: str) -> PlannedSet:
    return PlannedSet('row', 'row__7_s0', 7, 0, True, False, Path('set'), stages, Path('home'), options)


@pytest.mark.parametrize(
    ('select', 'prior'),
    [
        ({'method': 'random', 'encoder': CLIP}, 'none'),  # looks at no features
        ({'method': 'medoids'}, 'none'),
        ({'method': 'medoids', 'encoder': CLIP}, 'open_clip ViT-B-32, openai'),
        ({'method': 'medoids', 'encoder': {'type': 'open_clip'}}, 'open_clip ViT-B-32, openai'),  # by default
        ({'method': 'uniform'}, 'open_clip ViT-B-32, openai'),  # of the cluster stage, whose labels it takes
        ({'method': 'random', 'codec': {'type': 'autoencoder_kl'}}, 'stabilityai/sd-vae-ft-mse'),
        (
            {'method': 'random', 'targets': {'type': 'teacher', 'network': 'edsr.yml', 'weights': 'edsr.pth'}},
            'edsr.pth',
        ),
    ],
)
def test_whose_weights_a_choice_was_made_with(select: dict[str, Any], prior: str) -> None:
    options = {**POOL, 'cluster': {'save_dir': 'clusters'}, 'select': {**select, 'num_images': 7, 'save_dir': 'set'}}
    assert prior_of(planned(options, 'select')) == prior


@pytest.mark.parametrize(
    ('recipe', 'stages', 'prior'),
    [
        ('paper', ['sample'], 'open_clip ViT-B-32, openai; facebook/DiT-XL-2-256; stabilityai/sd-vae-ft-mse'),
        ('demo', ['sample'], 'none'),
    ],
)
def test_whose_weights_a_set_was_drawn_with(recipe: str, stages: list[str], prior: str) -> None:
    options = load_option_file(REPOSITORY / 'options' / 'distill' / f'{recipe}.yml')
    assert prior_of(planned(options, *stages)) == prior


def test_whose_weights_a_gsdd_set_was_trained_with() -> None:
    prior = prior_of(planned(load_option_file(REPOSITORY / 'options' / 'distill' / 'gsdd.yml'), 'finetune', 'sample'))
    assert prior.startswith('open_clip ViT-B-32, openai; RRDBNet, ') and prior.endswith('; VGG19, ImageNet')


def test_what_exists_has_no_known_prior() -> None:
    assert prior_of(planned({})) == ''
