"""Figures and pictures of a report against known answers, and the page in a browser."""

import json
import re
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from simulated import SimulatedRow, simulated_results
from skimage import data
from support import CHROMIUM, CHROMIUM_FLAGS, save_rgb

from basicsr_distill.benchmark.report import figures, page, pictures
from basicsr_distill.benchmark.report.page import write_report
from basicsr_distill.benchmark.results import Results
from basicsr_distill.benchmark.sets import PlannedSet
from basicsr_distill.benchmark.statistics import summarize
from basicsr_distill.cli import main
from basicsr_distill.config.benchmark_file import BenchmarkFile
from basicsr_distill.io.figures import as_svg
from basicsr_distill.io.manifest import SampleRow, write_table
from basicsr_distill.ops.bicubic import bicubic_downsample, bicubic_upsample


def test_the_spectrum_of_white_noise_is_flat_at_its_variance() -> None:
    noise = np.random.default_rng(0).normal(128, 20, (16, 256, 256, 1)).clip(0, 255).round().astype(np.uint8)
    power = figures.radial_spectrum([image.repeat(3, 2) for image in noise])
    assert power.shape == (32,)
    assert power[2:] == pytest.approx(10 * np.log10(noise.var()), abs=0.3)


def test_a_wave_stands_at_its_frequency() -> None:
    x = np.arange(128)
    wave = (128 + 100 * np.cos(2 * np.pi * 0.3 * x)).round().astype(np.uint8)
    image = np.broadcast_to(wave[None, :, None], (128, 128, 3))
    assert int(figures.radial_spectrum([image]).argmax()) == int(0.3 * 2 * 32)


def test_figures_are_documents_that_do_not_change() -> None:
    points = {7: summarize([27.0, 27.2]), 70: summarize([28.0])}
    plot = figures.plot_against_count({'medoids': points}, {'full': summarize([28.5, 28.6])}, 'EDSR', 'PSNR, dB')
    svg = as_svg(plot)
    assert svg.startswith('<?xml') and svg == as_svg(
        figures.plot_against_count({'medoids': points}, {'full': summarize([28.5, 28.6])}, 'EDSR', 'PSNR, dB')
    )
    assert cv2.imdecode(np.frombuffer(figures.as_png(plot), np.uint8), 1).shape[0] > 300
    axes = plot.axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ['7', '70']
    assert axes.lines[0].get_ydata() == pytest.approx([27.1, 28.0])


def test_a_montage_has_a_row_a_label(tmp_path: Path) -> None:
    rows = []
    for number, colour in enumerate((10, 90, 170)):
        save_rgb(tmp_path / 'HR' / f'{number}.png', np.full((40, 40, 3), colour, np.uint8))
        rows.append(SampleRow(f'{number}.png', number % 2, number // 2, 0, 'ab', 1.0, '', 'matlab_rgb', 23.5))
    planned = PlannedSet('row', 'row__3', 3, 0, True, False, tmp_path)
    assert pictures.montage(planned, 4).shape == (72, 3 * 72, 3)  # without a manifest: in one row
    write_table(tmp_path / 'manifest.csv', rows, SampleRow)
    montage = pictures.montage(planned, 4)
    assert montage.shape == (2 * 72, 2 * 72, 3)
    assert [int(montage[y, x, 0]) for y in (36, 108) for x in (36, 108)] == [10, 170, 90, 255]
    rgb = np.zeros((10, 5, 3), np.uint8)
    assert pictures.side_by_side([rgb, rgb], gap_px=4).shape == (10, 14, 3)
    assert len(pictures.some_images(planned, 4, 2)) == 2


class Sources(HTMLParser):
    """Everything that a page would ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or '' for key, value in attrs if key in ('src', 'href', 'srcset', 'action', 'data')]


# In the page: collects what goes wrong, moves every control, and tells the page around it.
PROBE = """<script>
const problems = [];
addEventListener('error', event => problems.push(String(event.message || event.target.outerHTML)), true);
console.error = (...all) => problems.push(all.join(' '));
addEventListener('load', () => {
  for (const control of document.querySelectorAll('input, select')) {
    control.value = control.tagName == 'SELECT' ? '0' : '20';
    control.dispatchEvent(new Event('input'));
    control.dispatchEvent(new Event('change'));
  }
  setTimeout(() => parent.postMessage({
    problems, width: document.documentElement.scrollWidth, window: innerWidth, images: document.images.length,
    missing: [...document.images].filter(image => !image.complete || !image.naturalWidth).length,
    requests: performance.getEntriesByType('resource').filter(entry => !entry.name.startsWith('data:')).length,
  }, '*'), 500);
});
</script>"""
# Around it: a frame as wide as a phone's screen, since a window of Chromium is never narrower than 500 pixels.
FRAME = """<!DOCTYPE html><html><body style="margin: 0"><pre id="said"></pre><script>
addEventListener('message', event => document.getElementById('said').append(JSON.stringify(event.data)));
</script><iframe src="probed.html" style="border: 0; height: 2400px; width: WIDTHpx"></iframe></body></html>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason='no Chromium here (Debian: apt install chromium)')
def test_the_page_in_a_browser(toy: Path) -> None:
    """At the width of a desk and of a phone: no error, no missing image, no request, nothing to scroll sideways."""
    assert CHROMIUM is not None
    for name, image in (('chelsea_2', data.chelsea()[100:196, 100:228]), ('coffee', data.coffee()[100:196, 100:228])):
        save_rgb(toy / 'held' / f'{name}.png', image)
    assert (
        main(
            [
                'benchmark',
                '-opt',
                'toy.yml',
                '--force_yml',
                'benchmark:sets:medoids={select: {method: medoids}}',
                'benchmark:metrics=[psnr_y, ssim_y, psnr_rgb, ssim_rgb]',
            ]
        )
        == 0
    )
    text = (toy / 'experiments' / 'toy' / 'report.html').read_text()
    parser = Sources()
    parser.feed(text)
    assert len(parser.found) > 12 and all(source.startswith('data:') for source in parser.found)
    assert not re.findall(r'url\((?!data:)', text) and '@import' not in text
    (toy / 'probed.html').write_text(text.replace('<head>', f'<head>{PROBE}', 1))
    for width in (1280, 390):
        frame = toy / f'frame_{width}.html'
        frame.write_text(FRAME.replace('WIDTH', str(width)))
        common = [CHROMIUM, *CHROMIUM_FLAGS, f'--user-data-dir={toy / "profile"}', f'--window-size={width},2400']
        shown = subprocess.run([*common, '--dump-dom', frame.as_uri()], capture_output=True, text=True, timeout=120)
        said = json.loads(shown.stdout.partition('<pre id="said">')[2].partition('</pre>')[0])
        assert said['problems'] == [] and 'CONSOLE' not in shown.stderr
        assert said['missing'] == said['requests'] == 0 and said['images'] > 10
        assert said['window'] == width and said['width'] <= width
        picture = toy / f'report_{width}.png'
        subprocess.run(
            [*common, f'--screenshot={picture}', frame.as_uri()], capture_output=True, check=True, timeout=120
        )
        assert cv2.imread(str(picture)).std() > 20


ONE_SEED = ['--force_yml', 'benchmark:budget:full_total_iter=~', 'benchmark:seeds=[0]']
IMPOSSIBLE = '{select: {method: medoids, band: [0.5, 0.500001]}}'


@pytest.mark.long
def test_a_row_that_cannot_be_made_stands_in_the_tables_with_its_cause(toy: Path) -> None:
    assert (
        main(['benchmark', '-opt', 'toy.yml', *ONE_SEED, f'benchmark:sets={{odd: {IMPOSSIBLE}, full: {{full: true}}}}'])
        == 1
    )
    root = toy / 'experiments' / 'toy'
    values = (root / 'tables' / 'psnr_y__edsr__held.md').read_text()
    assert '| odd |  |  |' in values and re.search(r'\| full \|  \| \*\*\d\d\.\d\d \(one set\)\*\* \|', values)
    cause = next(line for line in (root / 'tables' / 'failed.md').read_text().splitlines() if line.startswith('| odd'))
    assert 'set odd__3_s0 (exit code 2)' in cause and 'select.num_images' in cause
    for name in ('report.html', 'report.md'):
        text = (root / name).read_text()
        assert 'What failed' in text and 'Rows without a result' in text and 'select.num_images' in text


def test_a_report_of_failures_alone(toy: Path) -> None:
    file, root = BenchmarkFile.load(Path('toy.yml')), Path('experiments', 'toy')
    root.mkdir(parents=True)
    write_report(file, root, Results(4, [], {}), ['random: recipe pool.yml (exit code 2): no photographs'])
    for name in ('report.html', 'report.md'):
        text = (root / name).read_text()
        assert 'No cell is finished.' in text and 'What failed' in text and 'no photographs' in text
    assert '<img' not in (root / 'report.html').read_text()
    assert (root / 'tables' / 'failed.md').read_text().splitlines()[-3:] == [
        '| random | random: recipe pool.yml (exit code 2): no photographs |',
        '| full | no cell of it is finished |',
        '| full, 3 iterations | no cell of it is finished |',
    ]


def test_a_set_that_is_gone_is_left_out_of_the_pictures(toy: Path) -> None:
    """Its cells may still be finished: a set whose recipe was changed is removed before it is made again."""
    file, root = BenchmarkFile.load(Path('toy.yml')), Path('experiments', 'toy')
    root.mkdir(parents=True)
    (toy / 'empty').mkdir()
    results = simulated_results([SimulatedRow('random', {(0, 0): 27.0}, is_real=True)], count=3)
    for folder in ('empty', 'gone'):
        cells = [
            replace(result, cell=replace(result.cell, set=replace(result.cell.set, folder=Path(folder))))
            for result in results.cells
        ]
        write_report(file, root, replace(results, cells=cells), [])
        assert 'Radial spectrum' not in (root / 'report.html').read_text()


def test_flat_images_have_no_scores_to_draw(tmp_path: Path) -> None:
    save_rgb(tmp_path / 'flat' / '0.png', np.full((40, 40, 3), 90, np.uint8))
    planned = PlannedSet('flat', 'flat__1', 1, 0, True, False, tmp_path / 'flat')
    assert [plot.title for plot in page._distributions({'flat': planned}, 4)] == ['Radial spectrum of the same images']


@pytest.mark.parametrize('scale', [2, 3])
def test_scores_are_those_of_the_scale(scale: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = data.astronaut()[:67, :70]
    save_rgb(tmp_path / 'set' / '0.png', image)
    shown = []
    monkeypatch.setattr(figures, 'plot_scores', lambda scores: shown.append(scores))
    plots = page._distributions({'set': PlannedSet('set', 'set__1', 1, 0, True, False, tmp_path / 'set')}, scale)
    x = torch.from_numpy(image[: 67 // scale * scale, : 70 // scale * scale] / 255).permute(2, 0, 1)
    back = bicubic_upsample(bicubic_downsample(x, scale), scale)
    expected = -10 * torch.log10((x - back).square().mean())
    assert shown[0]['set'] == pytest.approx([float(expected)], abs=1e-3) and f'x{scale}' in plots[0].title


def test_a_strip_shows_the_image_that_it_names(tmp_path: Path) -> None:
    """chelsea_* is also the name of chelsea_2's picture, which comes first in a folder; equal names have their
    folder's in front."""
    for name, top in (('chelsea', 0), ('chelsea_2', 100)):
        save_rgb(tmp_path / 'held' / f'{name}.png', data.chelsea()[top : top + 64, :96])
    cell = simulated_results([SimulatedRow('random', {(0, 0): 27.0})]).cells[0]
    saved = tmp_path / 'cells' / cell.cell.identity / 'test' / 'results' / cell.cell.identity / 'visualization'
    for name, value in (('chelsea', 10), ('chelsea_2', 200)):
        save_rgb(saved / 'held' / f'{name}_{cell.cell.identity}.png', np.full((64, 96, 3), value, np.uint8))
    shown = pictures.strip(tmp_path, {'random': cell}, 'held', tmp_path / 'held', 4)
    assert shown is not None and shown.title == 'held: chelsea'
    assert [picture.name for picture in shown.pictures] == ['LR', 'bicubic', 'random', 'HR']
    assert shown.pictures[2].rgb.min() == shown.pictures[2].rgb.max() == 10

    for folder in ('A', 'B'):
        save_rgb(tmp_path / 'twice' / folder / 'p.png', data.chelsea()[:64, :96])
    save_rgb(saved / 'twice' / f'A_p_{cell.cell.identity}.png', np.full((64, 96, 3), 30, np.uint8))
    shown = pictures.strip(tmp_path, {'random': cell}, 'twice', tmp_path / 'twice', 4)
    assert shown is not None and shown.pictures[2].rgb.max() == 30
    assert pictures.strip(tmp_path, {'random': cell}, 'other', tmp_path / 'held', 4) is None
