"""What a report says, gathered from the results and written as HTML and as Markdown."""

import shutil
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
from basicsr_distill.benchmark.cells import CELLS_FOLDER, TEST, TRAIN
from basicsr_distill.benchmark.comparisons import against_full, against_real, best_real, best_row, headline_values
from basicsr_distill.benchmark.report import figures, pictures
from basicsr_distill.benchmark.results import CellResult, Results, row_of
from basicsr_distill.benchmark.sets import RECIPE_NAME, PlannedSet, hr_folder
from basicsr_distill.benchmark.statistics import LEVEL, SETS_OF_A_CLAIM, SETS_OF_AN_INTERVAL, summarize
from basicsr_distill.benchmark.tables import (
    TITLES,
    Table,
    crop_warnings,
    failed_table,
    gain_text,
    headline_tables,
    set_table,
    shown,
    value_tables,
    verdict_text,
    worst_table,
)
from basicsr_distill.config.benchmark_file import BenchmarkFile
from basicsr_distill.config.sections.benchmark import BenchmarkOptions
from basicsr_distill.io.figures import as_svg, data_uri
from basicsr_distill.io.files import write_atomic
from basicsr_distill.io.images import encode_png, find_images
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
    'The unit is the set: the trainings of a set are averaged first, and the column "sets" says how many independent '
    'sets a row has. The gain over the best real row is the least of those over each real row; positive is better. Its '
    f"interval is for the gain over whichever real row is truly the best, at {1 - LEVEL:.0%}, from Student's t of "
    'differences paired by seed: the lower end is the lowest of those against each real row, the upper end the lowest '
    'when these are corrected for their number. '
    f'"Better" and "worse" need {SETS_OF_A_CLAIM} sets and a difference larger than the standard deviation of either '
    'row. Better, of a row that is not real: than every real row, each by its own one-sided t-test (an '
    'intersection-union test). Worse: than one of them, corrected for their number. '
    "Both are corrected over the rows of a count by Holm's method: where all rows "
    f'are equal, a count of a network claims anything with a chance of {LEVEL:.0%} at most. Nothing is corrected for '
    'several counts and networks. "Inside the spread" is a difference that the sets alone explain; it is no gain. '
    f'Under {SETS_OF_AN_INTERVAL} sets there is no interval. A row that is not drawn (a path, the full pool) is one '
    'set, and nothing is claimed of it: "among the sets" says that it lies where one more set of the other row is '
    f'expected in {1 - LEVEL:.0%} of cases. IOR is the gain over random patches of that count as a share of what the '
    "full pool at equal steps gains over bicubic interpolation; both are those of the row's own recipe, where it has "
    'such rows.'
)
_ABOUT_VALUES = (
    'Mean ± standard deviation over the sets; a row of one set has neither spread nor interval. The best '
    'of a column is bold.'
)


@dataclass(frozen=True)
class _Plot:
    """title, and the figure."""

    title: str
    figure: Figure

    @property
    def svg(self) -> str:
        """As a data URI."""
        return data_uri(as_svg(self.figure).encode(), 'image/svg+xml')


def remove_report(root: Path) -> None:
    """Remove what an earlier :func:`write_report` wrote below the benchmark's folder."""
    for name in (HTML_NAME, MARKDOWN_NAME):
        (root / name).unlink(missing_ok=True)
    for folder in (_TABLES, _PICTURES):
        shutil.rmtree(root / folder, ignore_errors=True)


def write_report(
    file: BenchmarkFile, root: Path, results: Results, failed: Sequence[str], checked: Sequence[str] = ()
) -> None:
    """``report.html``, ``report.md`` with ``report/*.png``, and ``tables/``.

    Where no cell is finished they say what failed.

    Args:
        file: the benchmark file.
        root: of the benchmark.
        results: of its cells.
        failed: what did not succeed, a line each.
        checked: how the pools were held against the tests, a line each; empty where they were not.
    """
    content = _content(file, root, results, failed) | {
        'checked': list(checked) or ['The pools were not held against the tests (leak_check is off).']
    }
    environment = Environment(loader=PackageLoader('basicsr_distill.benchmark.report', '.'), autoescape=True)
    page = environment.get_template('page.html.j2').render(content)
    (root / _TABLES).mkdir(exist_ok=True)
    optional = [table for table in (content['failed_rows'],) if table]
    for table in [*optional, *content['headline'], *content['values'], content['worst'], content['sets']]:
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
        'name': file.name,
        'summary': [*_summary(options, results), *crop_warnings(results)],
        'failed': failed,
        'failed_rows': failed_table(options, results, failed),
        'about_headline': _ABOUT_HEADLINE,
        'headline': headline_tables(options, results),
        'about_values': _ABOUT_VALUES,
        'curves': _curves(options, results),
        'values': value_tables(options, results),
        'worst': worst_table(options, results),
        'sets': set_table(options, results),
        'coverage': _coverage_table(shown_sets),
        'strips': _strips(file, root, results),
        'about_strips': f'Sets of {options.counts[0]} images, seed {options.seeds[0]}, network '
        f'{next(iter(options.networks))}; the middle of the first image of each test, enlarged.',
        'distributions': _distributions(shown_sets, results.scale),
        'montages': [
            pictures.Picture(
                f'{label} ({planned.count or "all"} images, some of them; a row a cluster, where it has them)',
                pictures.montage(planned, results.scale),
            )
            for label, planned in shown_sets.items()
        ],
        'licences': _licences(shown_sets),
        'about_settings': f'basicsr-distill {__version__}, torch {torch.__version__}. `basicsr benchmark -opt '
        f'{file.path}` repeats all of it; cells that are finished and unchanged are not run again.',
        'settings': yaml.safe_dump({'name': file.name, 'benchmark': settings}, sort_keys=False),
        'commands': '\n'.join(_commands(root, results)),
    }


def _summary(options: BenchmarkOptions, results: Results) -> list[str]:
    """The two headline figures in sentences, one a network: of the best row that is not real, at each count."""
    metric = options.metrics[0]
    lines = []
    for network in options.networks:
        for count in options.counts:
            values = headline_values(options, results, network, count)
            real = best_real(options, values)
            row = best_row(options, {row: own for row, own in values.items() if not row.is_real and not row.is_full})
            if real is None or row is None:
                continue
            mean = summarize(list(values[row].values())).mean
            text = (
                f'{network}, {count} images: {row.name} {shown(mean, metric)}, against the best real row '
                f'({real.name}) {verdict_text(against_real(options, values).get(row), metric)}'
            )
            full = [gain_text(gain, metric) for gain in against_full(options, values, row).values() if gain]
            lines.append(f'{text}; against the full pool {" and ".join(full)}.' if full else f'{text}.')
    if not results.cells:
        return ['No cell is finished.']
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
                    values = list(results.by_set(row, count, network, metric, options.tests).values())
                    if values and count is None:
                        levels[label] = summarize(values)
                    elif values and count is not None:
                        lines.setdefault(label, {})[count] = summarize(values)
            title = f'{network}, mean of {", ".join(options.tests)}'
            if lines or levels:
                plots.append(
                    _Plot(f'{metric}__{network}', figures.plot_against_count(lines, levels, title, TITLES[metric]))
                )
    return plots


def _shown_sets(options: BenchmarkOptions, results: Results) -> dict[str, PlannedSet]:
    """A set of each row: the first seed's, at the count in the middle; none that is no longer there."""
    middle = options.counts[len(options.counts) // 2]
    sets = {
        result.cell.set.row: result.cell.set
        for result in results.cells
        if result.cell.set.count in (None, middle) and result.cell.set.seed in (None, options.seeds[0])
    }
    return {
        label: planned
        for label, planned in sets.items()
        if planned.folder.is_dir() and find_images([hr_folder(planned)])
    }


def _strips(file: BenchmarkFile, root: Path, results: Results) -> list[pictures.Strip]:
    options = file.options
    network, count = next(iter(options.networks)), options.counts[0]
    cells: dict[str, CellResult] = {}
    for result in results.cells:
        cell = result.cell
        if cell.saves_images and cell.network == network and cell.set.count in (None, count):
            cells[row_of(cell).label(options.budget.full_total_iter)] = result
    if not cells:
        return []
    strips = (pictures.strip(root, cells, test, Path(folder), results.scale) for test, folder in options.tests.items())
    return [strip for strip in strips if strip is not None]


def _distributions(sets: dict[str, PlannedSet], scale: int) -> list[_Plot]:
    scores, spectra = {}, {}
    for label, planned in sets.items():
        images = pictures.some_images(planned, scale, _PROBES)
        psnr_db = [float(psnr_after_bicubic(_tensor(image, scale), scale)[0]) for image in images]
        if any(map(np.isfinite, psnr_db)):
            scores[label] = np.array(psnr_db, np.float32)
        side = min(min(image.shape[:2]) for image in images)
        spectra[label] = figures.radial_spectrum([image[:side, :side] for image in images])
    plots = []
    if scores:
        plots.append(
            _Plot(
                f'PSNR after bicubic x{scale} down and up, of up to {_PROBES} images of a set',
                figures.plot_scores(scores),
            )
        )
    if spectra:
        plots.append(_Plot('Radial spectrum of the same images', figures.plot_spectra(spectra)))
    return plots


def _tensor(image: NDArray[np.uint8], scale: int) -> torch.Tensor:
    height, width = (side // scale * scale for side in image.shape[:2])
    return torch.from_numpy(np.ascontiguousarray(image[:height, :width])).permute(2, 0, 1)[None]


def _coverage_table(sets: dict[str, PlannedSet]) -> Table | None:
    rows = []
    for label, planned in sets.items():
        facts = read_stage(planned.folder)
        if 'coverage' in facts and 'nearest_patch' in facts:
            rows.append(
                (
                    label,
                    *(
                        f'{facts[key]["median"]:.3g}'
                        for key in ('coverage', 'patches_coverage', 'nearest_patch', 'patches_nearest_patch')
                    ),
                )
            )
    header = (
        'set',
        'patch to nearest image',
        'to as many random patches',
        'image to nearest patch',
        'patch to nearest other patch',
    )
    title = (
        'Coverage and memorisation: median feature distances, by the encoder of each set; an image nearer to a '
        'patch than patches are to each other is a copy'
    )
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
    made = {
        result.cell.set.home: result.cell.set.stages
        for result in results.cells
        if result.cell.set.home and result.cell.set.stages
    }
    lines = [f'basicsr distill -opt {home / RECIPE_NAME} --stage {" ".join(stages)}' for home, stages in made.items()]
    for result in results.cells:
        folder = root / CELLS_FOLDER / result.cell.identity
        lines += [f'(cd {folder / part} && basicsr {part} -opt {part}.yml)' for part in (TRAIN, TEST)]
    return lines


def _markdown(root: Path, content: dict[str, Any]) -> str:
    (root / _PICTURES).mkdir(exist_ok=True)

    def saved(name: str, data: bytes) -> str:
        write_atomic(root / _PICTURES / name, data)
        return f'![{Path(name).stem}]({_PICTURES}/{name})'

    parts = [f'# {content["name"]}: what the sets are worth', *content['summary']]
    if content['failed']:
        parts += ['## What failed', *[f'- {line}' for line in content['failed']]]
    if content['failed_rows']:
        parts.append(content['failed_rows'].markdown())
    parts += [
        '## Headline',
        content['about_headline'],
        *[table.markdown() for table in content['headline']],
        '## Values against the number of images',
        *[saved(f'{plot.title}.png', figures.as_png(plot.figure)) for plot in content['curves']],
        '## All values',
        content['about_values'],
        *[table.markdown() for table in content['values']],
        content['worst'].markdown(),
    ]
    if content['strips']:
        parts += ['## What the trained networks make of it', content['about_strips']]
        for number, strip in enumerate(content['strips']):
            parts += [
                f'{strip.title}: {", ".join(picture.name for picture in strip.pictures)}',
                saved(f'strip_{number}.png', encode_png(pictures.side_by_side([p.rgb for p in strip.pictures]))),
            ]
    parts += ['## The sets', content['sets'].markdown()]
    parts += [f'- {line}' for line in content['checked']]
    if content['coverage']:
        parts.append(content['coverage'].markdown())
    parts += [
        saved(f'distribution_{number}.png', figures.as_png(plot.figure))
        for number, plot in enumerate(content['distributions'])
    ]
    for number, picture in enumerate(content['montages']):
        parts += [picture.name, saved(f'montage_{number}.png', encode_png(picture.rgb))]
    parts += [
        '## Licences',
        *[f'- {line}' for line in content['licences']],
        '## Settings, and how to repeat it',
        content['about_settings'],
        f'```yaml\n{content["settings"]}```',
        f'```\n{content["commands"]}\n```',
    ]
    return '\n\n'.join(parts) + '\n'
