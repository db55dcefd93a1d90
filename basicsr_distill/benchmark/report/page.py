"""What a report says, gathered from the results and written as HTML and as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jinja2 import Environment, PackageLoader
from matplotlib.figure import Figure
from numpy.typing import NDArray

from basicsr_distill import __version__
from basicsr_distill.benchmark.cells import CELLS_FOLDER
from basicsr_distill.benchmark.report import figures, pictures
from basicsr_distill.benchmark.results import CellResult, Results, row_of
from basicsr_distill.benchmark.sets import RECIPE_NAME, PlannedSet
from basicsr_distill.benchmark.statistics import summarize
from basicsr_distill.benchmark.tables import (
    TITLES,
    Table,
    best_real,
    gain_text,
    gains,
    headline_tables,
    set_table,
    shown,
    value_tables,
    worst_table,
)
from basicsr_distill.config.benchmark_file import BenchmarkFile
from basicsr_distill.config.sections import LOWER_IS_BETTER, BenchmarkOptions
from basicsr_distill.io.figures import as_svg, data_uri
from basicsr_distill.io.files import write_atomic
from basicsr_distill.io.images import encode_png
from basicsr_distill.ops.psnr import psnr_after_bicubic
from basicsr_distill.stages.published_set import CARD_NAME
from basicsr_distill.stages.record import read_stage

HTML_NAME = 'report.html'
MARKDOWN_NAME = 'report.md'
_PICTURES = 'report'
_TABLES = 'tables'
# Images of a set whose scores and spectra are drawn.
_PROBES = 70
_ABOUT_HEADLINE = (
    'Gain over the best real row: the row of real patches with the best mean at the same count and network, chosen '
    'after the fact, which favours it. Positive is better. Differences are taken seed by seed; the interval is that of '
    'their mean under 10,000 bootstrap resamples. "Inside the spread" is a difference that the seeds alone explain: '
    'its interval holds 0, or it is smaller than the standard deviation of one of the two rows. It is no gain. '
    'Two seeds show a direction; a claim needs three.')


@dataclass(frozen=True)
class _Plot:
    """title, and the figure."""

    title: str
    figure: Figure

    @property
    def svg(self) -> str:
        """As a data URI."""
        return data_uri(as_svg(self.figure).encode(), 'image/svg+xml')


def write_report(file: BenchmarkFile, root: Path, results: Results, failed: Sequence[str]) -> None:
    """``report.html``, ``report.md`` with ``report/*.png``, and ``tables/``; nothing where no cell is finished.

    Args:
        file: the benchmark file.
        root: of the benchmark.
        results: of its cells.
        failed: what did not succeed, a line each.
    """
    if not results.cells:
        return
    content = _content(file, root, results, failed)
    environment = Environment(loader=PackageLoader('basicsr_distill.benchmark.report', '.'), autoescape=True)
    page = environment.get_template('page.html.j2').render(content)
    (root / _TABLES).mkdir(exist_ok=True)
    for table in [*content['headline'], *content['values'], content['worst'], content['sets']]:
        write_atomic(root / _TABLES / f'{table.name}.md', table.markdown())
        write_atomic(root / _TABLES / f'{table.name}.tex', table.latex())
        write_atomic(root / _TABLES / f'{table.name}.html', table.html())
    write_atomic(root / HTML_NAME, page)
    write_atomic(root / MARKDOWN_NAME, _markdown(root, content))


def _content(file: BenchmarkFile, root: Path, results: Results, failed: Sequence[str]) -> dict[str, Any]:
    options = file.options
    shown_sets = _shown_sets(options, results)
    settings = options.model_dump(mode='json', exclude_defaults=True)
    return {
        'name': file.name, 'summary': _summary(options, results), 'failed': failed,
        'about_headline': _ABOUT_HEADLINE, 'headline': headline_tables(options, results),
        'curves': _curves(options, results), 'values': value_tables(options, results),
        'worst': worst_table(options, results), 'sets': set_table(options, results),
        'coverage': _coverage_table(shown_sets),
        'strips': _strips(file, root, results),
        'about_strips': f'Sets of {options.counts[0]} images, seed {options.seeds[0]}, network '
                        f'{next(iter(options.networks))}; the middle of the first image of each test, enlarged.',
        'distributions': _distributions(shown_sets),
        'montages': [pictures.Picture(f'{label} ({planned.count or "all"} images, some of them; a row a cluster, where '
                                      'it has them)', pictures.montage(planned))
                     for label, planned in shown_sets.items()],
        'licences': _licences(shown_sets),
        'about_settings': f'basicsr-distill {__version__}, torch {torch.__version__}. `basicsr benchmark -opt '
                          f'{file.path}` repeats all of it; cells that are finished and unchanged are not run again.',
        'settings': yaml.safe_dump({'name': file.name, 'benchmark': settings}, sort_keys=False),
        'commands': '\n'.join(_commands(root, results))}


def _summary(options: BenchmarkOptions, results: Results) -> list[str]:
    """The two headline figures in sentences, one a network: of the best row that is not real, at each count."""
    metric = options.metrics[0]
    lines = []
    for network in options.networks:
        for count in options.counts:
            real = best_real(options, results, network, count)
            others = {row: summarize(list(values.values())).mean for row in results.rows()
                      if not row.is_real and not row.is_full
                      and (values := results.values(row, count, network, metric, options.tests))}
            if real is None or not others:
                continue
            row = (min if metric in LOWER_IS_BETTER else max)(others, key=lambda key: others[key])
            over_real, over_full = gains(options, results, network, row, count)
            text = (f'{network}, {count} images: {row.name} {shown(others[row], metric)}, against the best real row '
                    f'({real.name}) {gain_text(over_real, metric)}')
            full = [gain_text(gain, metric) for gain in over_full if gain]
            lines.append(f'{text}; against the full pool {" and ".join(full)}.' if full else f'{text}.')
    return lines or [f'{len(results.cells)} cells; no row but real patches and the full pool.']


def _curves(options: BenchmarkOptions, results: Results) -> list[_Plot]:
    plots = []
    for metric in options.metrics:
        for network in options.networks:
            lines: dict[str, dict[int, Any]] = {}
            levels = {}
            for row in results.rows():
                label = row.label(options.budget.full_total_iter)
                for count in [None] if row.is_full else options.counts:
                    values = list(results.values(row, count, network, metric, options.tests).values())
                    if values and count is None:
                        levels[label] = summarize(values)
                    elif values and count is not None:
                        lines.setdefault(label, {})[count] = summarize(values)
            title = f'{network}, mean of {", ".join(options.tests)}'
            plots.append(_Plot(f'{metric}__{network}', figures.plot_against_count(lines, levels, title,
                                                                                  TITLES[metric])))
    return plots


def _shown_sets(options: BenchmarkOptions, results: Results) -> dict[str, PlannedSet]:
    """A set of each row: the first seed's, at the count in the middle."""
    middle = options.counts[len(options.counts) // 2]
    return {result.cell.set.row: result.cell.set for result in results.cells
            if result.cell.set.count in (None, middle) and result.cell.set.seed in (None, options.seeds[0])}


def _strips(file: BenchmarkFile, root: Path, results: Results) -> list[pictures.Strip]:
    options = file.options
    network, count = next(iter(options.networks)), options.counts[0]
    cells: dict[str, CellResult] = {}
    for result in results.cells:
        cell = result.cell
        if cell.saves_images and cell.network == network and cell.set.count in (None, count):
            cells[row_of(cell).label(options.budget.full_total_iter)] = result
    strips = (pictures.strip(root, cells, test, Path(folder), results.scale) for test, folder in options.tests.items())
    return [strip for strip in strips if strip is not None]


def _distributions(sets: dict[str, PlannedSet]) -> list[_Plot]:
    scores, spectra = {}, {}
    for label, planned in sets.items():
        images = pictures.images_of(planned, _PROBES)
        scores[label] = np.array([float(psnr_after_bicubic(_tensor(image))[0]) for image in images], np.float32)
        side = min(min(image.shape[:2]) for image in images)
        spectra[label] = figures.radial_spectrum([image[:side, :side] for image in images])
    return [_Plot('PSNR after bicubic down and up, of up to 70 images of a set', figures.plot_scores(scores)),
            _Plot('Radial spectrum of the same images', figures.plot_spectra(spectra))]


def _tensor(image: NDArray[np.uint8]) -> torch.Tensor:
    height, width = (side // 4 * 4 for side in image.shape[:2])
    return torch.from_numpy(np.ascontiguousarray(image[:height, :width])).permute(2, 0, 1)[None]


def _coverage_table(sets: dict[str, PlannedSet]) -> Table | None:
    rows = []
    for label, planned in sets.items():
        facts = read_stage(planned.folder)
        if 'coverage' in facts and 'nearest_patch' in facts:
            rows.append((label, *(f'{facts[key]["median"]:.3g}' for key in ('coverage', 'patches_coverage',
                                                                            'nearest_patch',
                                                                            'patches_nearest_patch'))))
    header = ('set', 'patch to nearest image', 'to as many random patches', 'image to nearest patch',
              'patch to nearest other patch')
    title = ('Coverage and memorisation: median feature distances, by the encoder of each set; an image nearer to a '
             'patch than patches are to each other is a copy')
    return Table('coverage', title, header, tuple(rows)) if rows else None


def _licences(sets: dict[str, PlannedSet]) -> list[str]:
    """The licence lines of the sets' cards."""
    lines = []
    for label, planned in sets.items():
        card = planned.folder / CARD_NAME
        if not card.is_file():
            lines.append(f'{label}: {planned.folder} says nothing of its licence; ask whoever took the photographs.')
            continue
        text = card.read_text(encoding='utf-8')
        section = text.partition('## Licence')[2].strip()
        own = [line.removeprefix('- ') for line in section.splitlines() if line.strip() and not line.startswith('#')]
        lines.append(f'{label}: {" ".join(own)}')
    return lines


def _commands(root: Path, results: Results) -> list[str]:
    made = {result.cell.set.home: result.cell.set.stages for result in results.cells if result.cell.set.home}
    lines = [f'basicsr distill -opt {home / RECIPE_NAME} --stage {" ".join(stages)}' for home, stages in made.items()]
    for result in results.cells:
        folder = root / CELLS_FOLDER / result.cell.identity
        lines.append(f'(cd {folder} && basicsr train -opt train.yml && basicsr test -opt test.yml)')
    return lines


def _markdown(root: Path, content: dict[str, Any]) -> str:
    (root / _PICTURES).mkdir(exist_ok=True)

    def saved(name: str, data: bytes) -> str:
        write_atomic(root / _PICTURES / name, data)
        return f'![{Path(name).stem}]({_PICTURES}/{name})'

    parts = [f'# {content["name"]}: what the sets are worth', *content['summary']]
    if content['failed']:
        parts += ['## What failed', *[f'- {line}' for line in content['failed']]]
    parts += ['## Headline', content['about_headline'], *[table.markdown() for table in content['headline']],
              '## Values against the number of images',
              *[saved(f'{plot.title}.png', figures.as_png(plot.figure)) for plot in content['curves']],
              '## All values', *[table.markdown() for table in content['values']], content['worst'].markdown()]
    if content['strips']:
        parts += ['## What the trained networks make of it', content['about_strips']]
        for number, strip in enumerate(content['strips']):
            parts += [f'{strip.title}: {", ".join(picture.name for picture in strip.pictures)}',
                      saved(f'strip_{number}.png', encode_png(pictures.side_by_side([p.rgb for p in strip.pictures])))]
    parts += ['## The sets', content['sets'].markdown()]
    if content['coverage']:
        parts.append(content['coverage'].markdown())
    parts += [saved(f'distribution_{number}.png', figures.as_png(plot.figure))
              for number, plot in enumerate(content['distributions'])]
    for number, picture in enumerate(content['montages']):
        parts += [picture.name, saved(f'montage_{number}.png', encode_png(picture.rgb))]
    parts += ['## Licences', *[f'- {line}' for line in content['licences']],
              '## Settings, and how to repeat it', content['about_settings'], f'```yaml\n{content["settings"]}```',
              f'```\n{content["commands"]}\n```']
    return '\n\n'.join(parts) + '\n'
