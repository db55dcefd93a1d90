"""The tables of a benchmark, as Markdown, LaTeX and HTML."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from basicsr_distill.benchmark.comparisons import (
    against_full,
    against_real,
    all_rows,
    best_real,
    headline_values,
    improvement_over_random,
)
from basicsr_distill.benchmark.results import Results, Row
from basicsr_distill.benchmark.sets import PlannedSet
from basicsr_distill.benchmark.statistics import LEVEL, SETS_OF_A_CLAIM, Gain, Summary, Verdict, summarize
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.config.sections.benchmark import LOWER_IS_BETTER, BenchmarkOptions
from basicsr_distill.config.sections.datasets import LatentPatchDatasetOptions
from basicsr_distill.config.sections.dit import MinimaxDiTNetworkOptions, MinimaxDiTTrainOptions
from basicsr_distill.config.sections.gsdd import GSDDTrainOptions, Vgg19Options
from basicsr_distill.config.sections.select import TargetOptions
from basicsr_distill.stages.licences import (
    Weights,
    codec_weights,
    denoiser_weights,
    encoder_weights,
    generator_weights,
    teacher_weights,
)
from basicsr_distill.stages.select.choose import METHODS

TITLES = {
    'psnr_y': 'PSNR on Y, dB',
    'ssim_y': 'SSIM on Y',
    'psnr_rgb': 'PSNR on RGB, dB',
    'ssim_rgb': 'SSIM on RGB',
    'lpips': 'LPIPS',
}
_ALL = 'all'
_LATEX = {
    '\\': r'\textbackslash{}',
    '~': r'\textasciitilde{}',
    '^': r'\textasciicircum{}',
    '±': r'$\pm$',
    **{character: f'\\{character}' for character in '_%&#${}'},
}


@dataclass(frozen=True)
class Table:
    """name: of its files.  title: above it.  header: of the columns.  rows: texts; bold ones begin and end with
    ``**``."""

    name: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """GitHub's flavour."""
        lines = [f'**{self.title}**', '', _joined(self.header), _joined(['---'] * len(self.header))]
        return '\n'.join([*lines, *(_joined([cell.replace('|', '/') for cell in row]) for row in self.rows)]) + '\n'

    def latex(self) -> str:
        """A ``tabular`` with the rules of booktabs."""
        columns = 'l' + 'r' * (len(self.header) - 1)
        body = [' & '.join(_latex(cell) for cell in row) + r' \\' for row in self.rows]
        return (
            '\n'.join(
                [
                    f'% {self.title}',
                    rf'\begin{{tabular}}{{{columns}}}',
                    r'\toprule',
                    ' & '.join(map(_latex, self.header)) + r' \\',
                    r'\midrule',
                    *body,
                    r'\bottomrule',
                    r'\end{tabular}',
                ]
            )
            + '\n'
        )

    def html(self) -> str:
        """A ``table`` in a box that scrolls by itself."""
        head = ''.join(f'<th scope="col">{html.escape(cell)}</th>' for cell in self.header)
        body = ''.join(
            f'<tr><th scope="row">{_html(name)}</th>{"".join(f"<td>{_html(cell)}</td>" for cell in cells)}</tr>'
            for name, *cells in self.rows
        )
        return (
            f'<div class="table"><table><caption>{html.escape(self.title)}</caption><thead><tr>{head}</tr></thead>'
            f'<tbody>{body}</tbody></table></div>\n'
        )


def value_tables(options: BenchmarkOptions, results: Results) -> list[Table]:
    """A table a network, test and metric: rows by count, mean and standard deviation, the best of a column bold."""
    return [
        _value_table(options, results, network, test, metric)
        for metric in options.metrics
        for network in options.networks
        for test in options.tests
    ]


def headline_tables(options: BenchmarkOptions, results: Results) -> list[Table]:
    """A table a network: what each row gains over the best real patches, and what it lacks to the full pool."""
    return [_headline_table(options, results, network) for network in options.networks]


def worst_table(options: BenchmarkOptions, results: Results) -> Table:
    """The worst training of every row, count and network, by the first metric."""
    metric, columns = options.metrics[0], _columns(options, results)
    rows = []
    for row in all_rows(options, results):
        cells = [row.label(options.budget.full_total_iter)]
        for network in options.networks:
            for count in columns:
                values = list(results.values(row, count, network, metric, options.tests).values())
                cells.append(shown(summarize(values, metric in LOWER_IS_BETTER).worst, metric) if values else '')
        rows.append(tuple(cells))
    header = (
        'set',
        *(f'{network}, {_ALL if count is None else count}' for network in options.networks for count in columns),
    )
    return Table('worst_seed', f'Worst seed, {TITLES[metric]}, mean of the tests', header, tuple(rows))


def set_table(options: BenchmarkOptions, results: Results) -> Table:
    """Images, pixels, storage and cost of every set."""
    lines: dict[tuple[str, int | None], tuple[str, ...]] = {}
    for result in results.cells:
        facts, planned = result.facts, result.cell.set
        key = (planned.row, planned.count)
        cost = 'was there before' if planned.stages else ''
        lines.setdefault(
            key,
            (
                planned.row,
                str(facts.images),
                f'{facts.pixels / 1e6:.2f}',
                ', '.join(
                    map(
                        str,
                        sorted(
                            {other.crop_px for other in results.cells if other.cell.set.identity == planned.identity}
                        ),
                    )
                ),
                f'{facts.num_bytes / 1e6:.2f}',
                cost if facts.make_s is None else duration(facts.make_s),
                'was there before' if facts.shared_s is None and planned.shared else duration(facts.shared_s),
                prior_of(planned),
                facts.pool,
            ),
        )
    header = (
        'set',
        'images',
        'megapixels',
        'crop, px',
        'MB',
        'time to make it',
        'shared stages before',
        'prior',
        'pool',
    )
    return Table('sets', 'The sets', header, tuple(lines.values()))


def failed_table(options: BenchmarkOptions, results: Results, failed: Sequence[str]) -> Table | None:
    """The rows without any result, each with the first line of ``failed`` that names it or one of its sets or cells."""
    rows = []
    for row in all_rows(options, results):
        if row not in results.rows():
            causes = [
                line for line in failed if f' {row.name}__' in line or row.name in line.partition(': ')[0].split(', ')
            ]
            more = f' and {len(causes) - 1} more' if len(causes) > 1 else ''
            rows.append(
                (
                    row.label(options.budget.full_total_iter),
                    f'{causes[0]}{more}' if causes else 'no cell of it is finished',
                )
            )
    return Table('failed', 'Rows without a result', ('set', 'cause'), tuple(rows)) if rows else None


def prior_of(planned: PlannedSet) -> str:
    """Weights of others that a set was made with, as far as its recipe says: none, or their names."""
    if not planned.stages:
        return ''
    recipe = Recipe.parse(Path(planned.row), planned.options)
    weights = _weights_of_choice(recipe) if planned.stages == ('select',) else _weights_of_drawing(recipe)
    named = [entry.name for entry in weights if entry.name is not None]
    return '; '.join(dict.fromkeys(named)) if named else 'none'


def _weights_of_choice(recipe: Recipe) -> list[Weights]:
    options = recipe.select
    assert options is not None
    weights = (
        [encoder_weights(encoder) for encoder in options.encoders] if METHODS[options.method].uses_features else []
    )
    if options.method == 'uniform' and recipe.cluster is not None:  # the one method that looks at labels
        weights.append(encoder_weights(recipe.cluster.encoder))
    return [*weights, *([] if options.codec is None else [codec_weights(options.codec)]), *_teacher(options.targets)]


def _weights_of_drawing(recipe: Recipe) -> list[Weights]:
    assert recipe.experiment is not None and recipe.sample is not None
    network, train = recipe.experiment.networks['network_g'], recipe.experiment.train
    dataset = recipe.experiment.datasets.get('train')
    weights = [] if recipe.cluster is None else [encoder_weights(recipe.cluster.encoder)]
    if isinstance(network, MinimaxDiTNetworkOptions):
        weights.append(denoiser_weights(network.model_dump()))
    if isinstance(dataset, LatentPatchDatasetOptions):
        weights.append(codec_weights(dataset.codec))
    if isinstance(train, MinimaxDiTTrainOptions) and not recipe.is_untuned:
        loss = train.high_frequency_opt
        if loss is not None and loss.mode == 'pixel' and loss.pixel_codec is not None:
            weights.append(codec_weights(loss.pixel_codec))
    if isinstance(train, GSDDTrainOptions):
        weights.append(generator_weights(train.generator, train.generator_weights))
        if isinstance(train.extractor, Vgg19Options):
            weights.append(Weights('Extractor', 'VGG19, ImageNet', None))
    return [*weights, *_teacher(recipe.sample.targets)]


def _teacher(targets: TargetOptions | None) -> list[Weights]:
    return [] if targets is None or targets.type == 'hr' else [teacher_weights(str(targets.weights))]


def crop_warnings(results: Results) -> list[str]:
    """A sentence for every network whose rows were not trained on crops of one side."""
    lines = []
    for network in dict.fromkeys(result.cell.network for result in results.cells):
        crops: dict[int, dict[str, None]] = {}
        for result in results.cells:
            if result.cell.network == network:
                crops.setdefault(result.crop_px, {})[result.cell.set.row] = None
        if len(crops) > 1:
            listed = '; '.join(f'{crop_px} px: {", ".join(rows)}' for crop_px, rows in sorted(crops.items()))
            lines.append(
                f'Not all rows of {network} were trained on equal crops ({listed}), so that they had unequal '
                'numbers of pixels.'
            )
    return lines


def duration(seconds: float | None) -> str:
    """``83 s`` or ``0:10:23``; empty for None."""
    if seconds is None:
        return ''
    return f'{seconds:.0f} s' if seconds < 100 else str(timedelta(seconds=round(seconds)))


def shown(value: float, metric: str) -> str:
    """A value with the digits that its metric is printed with."""
    return f'{value:.{_digits(metric)}f}'


def _digits(metric: str) -> int:
    return 2 if 'psnr' in metric else 4


def _columns(options: BenchmarkOptions, results: Results) -> list[int | None]:
    """The counts, and None where there is a full pool."""
    return [*options.counts, *([None] if any(row.is_full for row in all_rows(options, results)) else [])]


def _value_table(options: BenchmarkOptions, results: Results, network: str, test: str, metric: str) -> Table:
    columns = _columns(options, results)
    summaries = {
        (row, count): summarize(list(values.values()))
        for row in results.rows()
        for count in columns
        if (values := results.by_set(row, count, network, metric, [test]))
    }
    best = {}
    for count in columns:
        of_column = [summary.mean for (_, own), summary in summaries.items() if own == count]
        if of_column:
            best[count] = min(of_column) if metric in LOWER_IS_BETTER else max(of_column)

    def cell(row: Row, count: int | None) -> str:
        summary = summaries.get((row, count))
        return '' if summary is None else _bold(_mean(summary, metric), summary.mean == best[count])

    rows = [
        (row.label(options.budget.full_total_iter), *(cell(row, count) for count in columns))
        for row in all_rows(options, results)
    ]
    bicubic = results.bicubic.get(test, {}).get(metric)
    if bicubic is not None:
        rows.append(('(bicubic, no training)', shown(bicubic, metric), *[''] * (len(columns) - 1)))
    header = ('set', *(_ALL if count is None else f'{count} images' for count in columns))
    return Table(f'{metric}__{network}__{test}', f'{TITLES[metric]}: {network} on {test}', header, tuple(rows))


def _headline_table(options: BenchmarkOptions, results: Results, network: str) -> Table:
    metric = options.metrics[0]
    full = [row for row in results.rows() if row.is_full]
    lines: list[tuple[tuple[str, ...], str | None, tuple[str, ...]]] = []
    for count in options.counts:
        values = headline_values(options, results, network, count)
        verdicts, real = against_real(options, values), best_real(options, values)
        for row in [row for row in values if not row.is_full]:
            gains = against_full(options, values, row)
            recovered = improvement_over_random(options, results, values, row)
            lines.append(
                (
                    (
                        row.name,
                        str(count),
                        str(len(values[row])),
                        _mean(summarize(list(values[row].values())), metric),
                        _best_text(row in verdicts) if row == real else verdict_text(verdicts.get(row), metric),
                    ),
                    None if recovered is None else f'{recovered:+.2f}',
                    tuple(gain_text(gains.get(other), metric) for other in full),
                )
            )
    has_ior = any(recovered is not None for _, recovered, _ in lines)
    header = (
        'set',
        'images',
        'sets',
        TITLES[metric],
        'gain over the best real row',
        *(['IOR'] if has_ior else []),
        *(f'against {row.label(options.budget.full_total_iter)}' for row in full),
    )
    rows = tuple((*first, *([recovered or ''] if has_ior else []), *last) for first, recovered, last in lines)
    return Table(
        f'headline__{network}',
        f'{network}: mean of {", ".join(options.tests)}; differences paired by seed '
        f"with Student's {1 - LEVEL:.0%} interval over the sets",
        header,
        rows,
    )


def verdict_text(verdict: Verdict | None, metric: str) -> str:
    """A row against all real rows: its least gain, the interval, and what may be claimed.

    Args:
        verdict: None where there is no real row to compare with; then the text is empty.
        metric: by which it is.
    """
    if verdict is None:
        return ''
    if not verdict.least.is_paired and not verdict.claim:
        return gain_text(verdict.least, metric)
    text = _with_interval(verdict.least.mean, verdict.bounds, verdict.number, metric)
    if verdict.claim:
        return f'{text}, {verdict.claim}'
    if verdict.bounds is None:
        return text
    if verdict.is_inside_spread:
        return f'{text}, inside the spread'
    return f'{text}, no claim' + (f' by {verdict.number} sets' if verdict.number < SETS_OF_A_CLAIM else '')


def gain_text(gain: Gain | None, metric: str) -> str:
    """A difference to a single set, and whether that lies among the sets of the other row; empty for None."""
    if gain is None:
        return ''
    bounds = gain.bounds()
    if bounds is None:
        return _with_interval(gain.mean, None, gain.number, metric)
    where = 'among the sets' if bounds[0] <= 0 <= bounds[1] else 'outside the sets'
    return f'{gain.mean:+.{_digits(metric)}f}, {where}'


def _best_text(has_rivals: bool) -> str:
    return 'has the best mean of the real rows' if has_rivals else 'is the best real row'


def _with_interval(mean: float, bounds: tuple[float, float] | None, number: int, metric: str) -> str:
    digits = _digits(metric)
    if bounds is None:
        return f'{mean:+.{digits}f} ({number} {"set" if number == 1 else "sets"}: no interval)'
    return f'{mean:+.{digits}f} [{bounds[0]:+.{digits}f}, {bounds[1]:+.{digits}f}]'


def _mean(summary: Summary, metric: str) -> str:
    spread = f' ± {shown(summary.sd, metric)}' if summary.number > 1 else ' (one set)'
    return f'{shown(summary.mean, metric)}{spread}'


def _bold(text: str, is_best: bool) -> str:
    return f'**{text}**' if text and is_best else text


def _joined(cells: Sequence[str]) -> str:
    return f'| {" | ".join(cells)} |'


def _latex(text: str) -> str:
    bold = text.startswith('**')
    spelt = ''.join(_LATEX.get(character, character) for character in (text[2:-2] if bold else text))
    return rf'\textbf{{{spelt}}}' if bold else spelt


def _html(text: str) -> str:
    escaped = html.escape(text)
    return f'<b>{escaped[2:-2]}</b>' if escaped.startswith('**') else escaped
