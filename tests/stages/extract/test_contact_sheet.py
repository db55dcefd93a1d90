"""The contact sheet of an extraction, and the limits that are suggested."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from support import CHROMIUM, CHROMIUM_FLAGS, REPOSITORY, run_extract

from basicsr_distill.cli import main
from basicsr_distill.config.sections.extract import ExtractOptions
from basicsr_distill.errors import InputError
from basicsr_distill.ops.noise import noise_sigma
from basicsr_distill.stages.extract.report import write_report

LIMITS: dict[str, Any] = {
    'source_filters': {'grey': {'min': 2}, 'blockiness': {'max': 30}, 'noise': {'max': 'q80'}},
    'window_filters': {'flat': {'max': 0.4}, 'saturated': {'max': 'q98'}},
    'threshold': 'median',
}


class Page(HTMLParser):
    """Images by section and kind (dropped, kept, patches): their captions; and where all images come from."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sheets: dict[tuple[str, str], list[str]] = {}
        self.sources: list[str] = []
        self.section = self.kind = ''
        self.in_heading = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or '' for name, value in attrs}
        if tag == 'h2':
            self.in_heading, self.section = True, ''
        elif tag == 'div':
            self.kind = given['class'].removeprefix('sheet ')
        elif tag == 'img':
            self.sources.append(given['src'])
            if not given['alt'].startswith('Histogram'):
                self.sheets.setdefault((self.section, self.kind), []).append(given['alt'])

    def handle_data(self, data: str) -> None:
        if self.in_heading:
            self.section += data

    def handle_endtag(self, tag: str) -> None:
        self.in_heading = self.in_heading and tag != 'h2'


@pytest.fixture
def curated(photo_folder: Path, photos: dict[str, NDArray[np.uint8]]) -> ExtractOptions:
    """Photographs, a compressed, a noisy, a grey and a broken one, extracted behind filters and scores."""
    chelsea = photos['a/chelsea.png']
    cv2.imwrite(str(photo_folder / 'blocky.jpg'), chelsea[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 20])
    noisy = (chelsea + np.random.default_rng(0).normal(0, 20, chelsea.shape)).clip(0, 255).astype(np.uint8)
    cv2.imwrite(str(photo_folder / 'noisy.png'), noisy[..., ::-1])
    cv2.imwrite(str(photo_folder / 'grey <1>.png'), cv2.cvtColor(chelsea, cv2.COLOR_RGB2GRAY))
    (photo_folder / 'broken.png').write_bytes(b'no picture')
    scores = photo_folder.parent / 'hyperiqa.txt'
    scores.write_text(
        ''.join(f'{path.stem} {0.1 if path.stem == "rocket" else 0.9}\n' for path in photo_folder.rglob('*.*'))
    )
    options = ExtractOptions(
        dataroot=str(photo_folder),
        save_dir=str(photo_folder.parent / 'out'),
        patch_size=64,
        scores={'file': str(scores), 'min': 0.5},
        **LIMITS,
    )
    run_extract(options)
    return options


def test_both_sides_of_every_limit_are_shown_nearest_first(
    curated: ExtractOptions, photos: dict[str, NDArray[np.uint8]]
) -> None:
    text = write_report(curated).read_text()
    page = Page(text)
    assert all(source.startswith('data:') for source in page.sources) and len(page.sources) > 40
    assert not re.findall(r'url\((?!data:)|https?://', text) and '<script' not in text and '@import' not in text
    shown = {
        section: [caption.partition(', ')[2] for caption in captions]
        for (section, kind), captions in page.sheets.items()
        if kind == 'dropped'
    }
    assert shown['scores: hyperiqa'] == ['b/rocket.png']
    assert shown['source_filters: grey'] == ['grey <1>.png']
    assert shown['source_filters: blockiness'] == ['blocky.jpg']
    assert shown['source_filters: noise'] == ['noisy.png']
    assert 'broken.png: ' in text and 'grey &lt;1&gt;.png' in text
    noise = page.sheets['source_filters: noise', 'kept']
    assert [float(caption.partition(',')[0]) for caption in noise] == sorted(
        (float(caption.partition(',')[0]) for caption in noise), reverse=True
    )
    assert f'{noise_sigma(photos["coffee.png"][..., 1]):.4g}, coffee.png' in noise
    for section in ('window_filters: flat', 'window_filters: saturated'):
        assert page.sheets[section, 'dropped'] and page.sheets[section, 'kept']
    threshold = json.loads((Path(curated.save_dir) / 'stage.json').read_text())['threshold_db']
    for kind, side in (('dropped', 1), ('kept', -1)):
        found = [
            float(caption.partition(',')[0])
            for caption in page.sheets['threshold: PSNR after bicubic down and up, dB', kind]
        ]
        distances = [side * (value - threshold) for value in found]
        assert len(found) > 5 and distances == pytest.approx(sorted(distances), abs=1e-2) and distances[0] >= -1e-2
    assert len(page.sheets['Patches, from the hardest to the easiest', 'patches']) > 5


def test_it_is_written_by_the_command_and_says_so(
    curated: ExtractOptions, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / 'recipe.yml'
    recipe.write_text(yaml.safe_dump({'name': 'sheet', 'scale': 4, 'extract': curated.model_dump(mode='json')}))
    page = Path(curated.save_dir) / 'report.html'
    with caplog.at_level('INFO'):
        assert main(['distill', '-opt', str(recipe), '--stage', 'extract', '--report']) == 0
    assert f'{page} shows what was kept and dropped' in caplog.text
    before = page.read_bytes()
    assert main(['distill', '-opt', str(recipe), '--report']) == 0 and page.read_bytes() == before
    assert main(['distill', '-opt', str(recipe), '--stage', 'cluster', '--report']) == 2
    (Path(curated.dataroot[0]) / 'coffee.png').rename(tmp_path / 'coffee.png')
    assert main(['distill', '-opt', str(recipe), '--stage', 'extract', '--report']) == 2
    assert 'dataroot' in capsys.readouterr().err


def test_measures_of_another_run_are_refused(curated: ExtractOptions) -> None:
    np.savez(Path(curated.save_dir) / 'measures.npz', other=np.zeros(3))
    with pytest.raises(InputError, match=r'measures\.npz: is not the file that the extraction wrote'):
        write_report(curated)


def test_an_extraction_of_an_earlier_version_has_no_measures(
    curated: ExtractOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (Path(curated.save_dir) / 'measures.npz').unlink()
    record = Path(curated.save_dir) / 'stage.json'
    record.write_text(
        json.dumps(
            {
                **(known := json.loads(record.read_text())),
                'outputs': {name: digest for name, digest in known['outputs'].items() if name != 'measures.npz'},
            }
        )
    )
    recipe = tmp_path / 'recipe.yml'
    recipe.write_text(yaml.safe_dump({'name': 'sheet', 'scale': 4, 'extract': curated.model_dump(mode='json')}))
    assert main(['distill', '-opt', str(recipe), '--stage', 'extract', '--report']) == 2
    assert 'extract into another save_dir' in capsys.readouterr().err


def test_suggested_limits_keep_what_they_say(
    curated: ExtractOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(curated.save_dir)
    recipe = tmp_path / 'recipe.yml'
    plain = {
        'dataroot': curated.dataroot,
        'save_dir': curated.save_dir,
        'patch_size': 64,
        'scores': curated.model_dump(mode='json')['scores'],
    }
    recipe.write_text(yaml.safe_dump({'name': 'sheet', 'scale': 4, 'extract': plain}))
    assert main(['distill', '-opt', str(recipe), '--force_yml', 'extract:thresholds=suggest']) == 0
    assert not Path(curated.save_dir).exists(), 'nothing is made'
    shares = {}
    for line in capsys.readouterr().out.splitlines():
        name, *limits = line.split() or ['']
        if len(limits) == 3 and '%' not in line:
            shares[name] = [float(limit) for limit in limits]
    assert set(shares) == {
        *(f'source_filters.{name}.max' for name in ('aspect', 'blockiness', 'upscaled', 'noise')),
        'source_filters.min_side.min',
        'source_filters.grey.min',
        'scores.hyperiqa.min',
        *(f'window_filters.{name}.max' for name in ('flat', 'saturated', 'noise', 'halftone')),
        'threshold',
    }
    assert shares['source_filters.noise.max'] == sorted(shares['source_filters.noise.max'])
    assert shares['source_filters.grey.min'] == sorted(shares['source_filters.grey.min'], reverse=True)
    usable = [path for path in Path(curated.dataroot[0]).rglob('*.*') if path.name != 'broken.png']
    noise = [noise_sigma(cv2.imread(str(path))[..., 1]) for path in usable]
    assert np.mean(np.array(noise) <= shares['source_filters.noise.max'][1] * 1.01) == pytest.approx(0.75, abs=0.1)
    folder = run_extract(ExtractOptions(**plain | {'scores': None, 'threshold': 'q75'}))
    record = json.loads((folder / 'stage.json').read_text())
    assert record['threshold_db'] == pytest.approx(shares['threshold'][1], rel=0.01)


PROBE = """<script>
addEventListener('load', () => setTimeout(() => {
  const said = document.createElement('pre');
  said.id = 'said';
  said.textContent = JSON.stringify({
    width: document.documentElement.scrollWidth, window: innerWidth, images: document.images.length,
    missing: [...document.images].filter(image => !image.complete || !image.naturalWidth).length,
    requests: performance.getEntriesByType('resource').filter(entry => !entry.name.startsWith('data:')).length});
  document.body.append(said);
}, 500));
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason='no Chromium here (Debian: apt install chromium)')
def test_the_page_in_a_browser(curated: ExtractOptions, tmp_path: Path) -> None:
    """No missing image, no request, nothing to scroll sideways."""
    page = write_report(curated)
    probed = tmp_path / 'probed.html'
    probed.write_text(page.read_text().replace('<head>', f'<head>{PROBE}', 1))
    common = [CHROMIUM, *CHROMIUM_FLAGS, f'--user-data-dir={tmp_path / "profile"}']
    for width in (1280, 500):
        shown = subprocess.run(
            [*common, f'--window-size={width},2400', '--dump-dom', probed.as_uri()],
            capture_output=True,
            text=True,
            timeout=120,
        )
        said = json.loads(shown.stdout.partition('<pre id="said">')[2].partition('</pre>')[0])
        assert said['missing'] == said['requests'] == 0 and said['images'] > 40
        assert said['width'] <= said['window'] == width and 'CONSOLE' not in shown.stderr


@pytest.mark.parametrize(
    'profile', sorted((REPOSITORY / 'options' / 'distill').glob('curated*.yml')), ids=lambda path: path.stem
)
def test_profiles_run_on_a_folder_of_photographs(
    profile: Path, photo_folder: Path, photos: dict[str, NDArray[np.uint8]], capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(photo_folder / 'blocky.jpg'), photos['coffee.png'][..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 10])
    out = photo_folder.parent / 'out'
    small = ['extract:patch_size=64', f'extract:dataroot={photo_folder}', f'extract:save_dir={out}']
    if profile.stem == 'curated_phone':
        small.append('extract:source_filters:min_side:min=150')
    command = ['distill', '-opt', str(profile), '--stage', 'extract']
    assert main([*command, '--force_yml', *small, 'extract:thresholds=suggest']) == 0
    assert 'source_filters.blockiness.max' in capsys.readouterr().out and not out.exists()
    assert main([*command, '--report', '--force_yml', *small]) == 0
    assert 'blocky.jpg,blockiness,' in (out / 'quarantine.csv').read_text()
    assert list((out / 'images').iterdir()) and (out / 'report.html').is_file()
