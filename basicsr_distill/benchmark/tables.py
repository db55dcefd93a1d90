"""The tables of a benchmark, as Markdown, LaTeX and HTML."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from basicsr_distill.benchmark.results import Results, Row, paired
from basicsr_distill.benchmark.sets import PlannedSet
from basicsr_distill.benchmark.statistics import Gain, paired_gain, summarize
from basicsr_distill.config.sections import LOWER_IS_BETTER, BenchmarkOptions

TITLES = {'psnr_y': 'PSNR on Y, dB', 'ssim_y': 'SSIM on Y', 'psnr_rgb': 'PSNR on RGB, dB', 'ssim_rgb': 'SSIM on RGB',
           'lpips': 'LPIPS'}
_ALL = 'all'
_SEEDS_OF_A_CLAIM = 3  # two differences have an interval that is nothing but these two
_LATEX = {'\\': r'\textbackslash{}', '~': r'\textasciitilde{}', '^': r'\textasciicircum{}', '±': r'$\pm$',
          **{character: f'\\{character}' for character in '_%&#${}'}}


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
        return '\n'.join([f'% {self.title}', rf'\begin{{tabular}}{{{columns}}}', r'\toprule',
                          ' & '.join(map(_latex, self.header)) + r' \\', r'\midrule', *body, r'\bottomrule',
                          r'\end{tabular}']) + '\n'

    def html(self) -> str:
        """A ``table`` in a box that scrolls by itself."""
        head = ''.join(f'<th scope="col">{html.escape(cell)}</th>' for cell in self.header)
        body = ''.join(f'<tr><th scope="row">{_html(name)}</th>{"".join(f"<td>{_html(cell)}</td>" for cell in cells)}'
                       '</tr>' for name, *cells in self.rows)
        return (f'<div class="table"><table><caption>{html.escape(self.title)}</caption><thead><tr>{head}</tr></thead>'
                f'<tbody>{body}</tbody></table></div>\n')


def value_tables(options: BenchmarkOptions, results: Results) -> list[Table]:
    """A table a network, test and metric: rows by count, mean and standard deviation, the best of a column bold."""
    return [_value_table(options, results, network, test, metric)
            for metric in options.metrics for network in options.networks for test in options.tests]


def headline_tables(options: BenchmarkOptions, results: Results) -> list[Table]:
    """A table a network: what each row gains over the best real patches, and what it lacks to the full pool."""
    return [_headline_table(options, results, network) for network in options.networks]


def worst_table(options: BenchmarkOptions, results: Results) -> Table:
    """The worst seed of every row, count and network, by the first metric."""
    metric, tests = options.metrics[0], list(options.tests)
    rows = []
    for row in results.rows():
        cells = [row.label(options.budget.full_total_iter)]
        for network in options.networks:
            for count in ([None] if row.is_full else options.counts):
                values = list(results.values(row, count, network, metric, tests).values())
                worst = summarize(values, metric in LOWER_IS_BETTER).worst if values else None
                cells.append('' if worst is None else shown(worst, metric))
            if row.is_full:
                cells += [''] * (len(options.counts) - 1)
        rows.append(tuple(cells))
    header = ('set', *(f'{network}, {count}' for network in options.networks for count in options.counts))
    return Table('worst_seed', f'Worst seed, {TITLES[metric]}, mean of the tests', header, tuple(rows))


def set_table(options: BenchmarkOptions, results: Results) -> Table:
    """Images, pixels, storage and cost of every set."""
    lines: dict[tuple[str, int | None], tuple[str, ...]] = {}
    for result in results.cells:
        facts, planned = result.facts, result.cell.set
        key = (planned.row, planned.count)
        cost = 'was there before' if facts.make_s is None and planned.home else ''
        lines.setdefault(key, (planned.row, str(facts.images), f'{facts.pixels / 1e6:.2f}',
                               f'{facts.num_bytes / 1e6:.2f}', cost if facts.make_s is None else duration(facts.make_s),
                               'was there before' if facts.shared_s is None and planned.shared else
                               duration(facts.shared_s), prior_of(planned)))
    header = ('set', 'images', 'megapixels', 'MB', 'time to make it', 'shared stages before', 'prior')
    return Table('sets', 'The sets', header, tuple(lines.values()))


def prior_of(planned: PlannedSet) -> str:
    """Whose weights a set was made with, as far as its recipe says."""
    options = planned.options
    if not planned.stages:
        return ''
    network, dataset = options.get('network_g') or {}, (options.get('datasets') or {}).get('train') or {}
    if planned.stages != ('select',):
        sources = [network.get('pretrained'), (dataset.get('codec') or {}).get('pretrained'),
                   (options.get('train') or {}).get('generator_weights')]
    else:
        encoders = options['select'].get('encoder') or {}
        sources = [encoder.get('pretrained') for encoder in (encoders if isinstance(encoders, list) else [encoders])]
    named = [str(source) for source in sources if source]
    return ', '.join(named) if named else 'none'


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


def _value_table(options: BenchmarkOptions, results: Results, network: str, test: str, metric: str) -> Table:
    columns: list[int | None] = [*options.counts, *([None] if any(row.is_full for row in results.rows()) else [])]
    means: dict[tuple[Row, int | None], float] = {}
    texts: dict[tuple[Row, int | None], str] = {}
    for row in results.rows():
        for count in columns:
            values = list(results.values(row, count, network, metric, [test]).values())
            if values:
                summary = summarize(values)
                means[row, count] = summary.mean
                texts[row, count] = f'{shown(summary.mean, metric)} ± {shown(summary.sd, metric)}'
    best = {}
    for count in columns:
        of_column = [value for (_, own), value in means.items() if own == count]
        if of_column:
            best[count] = min(of_column) if metric in LOWER_IS_BETTER else max(of_column)
    rows = [(row.label(options.budget.full_total_iter),
             *(_bold(texts.get((row, count), ''), means.get((row, count)) == best.get(count)) for count in columns))
            for row in results.rows()]
    bicubic = results.bicubic.get(test, {}).get(metric)
    if bicubic is not None:
        rows.append(('(bicubic, no training)', shown(bicubic, metric), *[''] * (len(columns) - 1)))
    header = ('set', *(_ALL if count is None else f'{count} images' for count in columns))
    return Table(f'{metric}__{network}__{test}', f'{TITLES[metric]}: {network} on {test}', header, tuple(rows))


def best_real(options: BenchmarkOptions, results: Results, network: str, count: int) -> Row | None:
    """The row of real patches with the best mean over the tests, by the first metric."""
    metric, tests = options.metrics[0], list(options.tests)
    means = {row: summarize(list(values.values())).mean for row in results.rows() if row.is_real
             and (values := results.values(row, count, network, metric, tests))}
    if not means:
        return None
    return (min if metric in LOWER_IS_BETTER else max)(means, key=lambda row: means[row])


def gains(options: BenchmarkOptions, results: Results, network: str, row: Row,
          count: int) -> tuple[Gain | None, list[Gain | None]]:
    """Of a row: over the best real patches, and over the full pool at each of its schedules."""
    metric, tests = options.metrics[0], list(options.tests)
    lower = metric in LOWER_IS_BETTER
    own = results.values(row, count, network, metric, tests)
    real = best_real(options, results, network, count)

    def over(other: Row | None, other_count: int | None) -> Gain | None:
        if other is None or other == row:
            return None
        return paired_gain(*paired(own, results.values(other, other_count, network, metric, tests)), lower)

    return over(real, count), [over(full, None) for full in results.rows() if full.is_full]


def _headline_table(options: BenchmarkOptions, results: Results, network: str) -> Table:
    metric = options.metrics[0]
    full = [row.label(options.budget.full_total_iter) for row in results.rows() if row.is_full]
    rows = []
    for count in options.counts:
        real = best_real(options, results, network, count)
        for row in results.rows():
            values = list(results.values(row, count, network, metric, list(options.tests)).values())
            if row.is_full or not values:
                continue
            over_real, over_full = gains(options, results, network, row, count)
            summary = summarize(values)
            gain = 'is the best real row' if row == real else gain_text(over_real, metric)
            rows.append((row.name, str(count), f'{shown(summary.mean, metric)} ± {shown(summary.sd, metric)}', gain,
                         *(gain_text(value, metric) for value in over_full)))
    header = ('set', 'images', TITLES[metric], 'gain over the best real row', *(f'against {name}' for name in full))
    return Table(f'headline__{network}', f'{network}: mean of {", ".join(options.tests)}; differences paired by seed '
                 'with 95 % bootstrap interval', header, tuple(rows))


def gain_text(gain: Gain | None, metric: str) -> str:
    """A difference with its interval, and whether it is one at all; empty for None."""
    if gain is None:
        return ''
    digits = _digits(metric)
    text = f'{gain.mean:+.{digits}f}'
    if gain.number < 2:
        return f'{text} (one seed)'
    text += f' [{gain.low:+.{digits}f}, {gain.high:+.{digits}f}]'
    if gain.is_inside_spread:
        return f'{text}, inside the spread'
    return f'{text} ({gain.number} seeds, no claim)' if gain.number < _SEEDS_OF_A_CLAIM else text


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
