"""A pool that scripts/spoil_photos.py spoils, and what the filters of its study take out again."""

import csv
import subprocess
import sys
from pathlib import Path

import cv2
import skimage.data
import yaml
from support import REPOSITORY, run_extract

from basicsr_distill.config.benchmark_file import BenchmarkFile
from basicsr_distill.config.sections.extract import ExtractOptions


def test_the_filters_find_what_was_done(tmp_path: Path) -> None:
    (tmp_path / 'photos').mkdir()
    crops = [
        (name, top, left)
        for name in ('astronaut', 'coffee', 'chelsea', 'rocket')
        for top, left in ((0, 0), (40, 190), (20, 90))
    ][:11]
    for number, (name, top, left) in enumerate(crops):
        rgb = getattr(skimage.data, name)()[top : top + 256, left : left + 256]
        cv2.imwrite(str(tmp_path / 'photos' / f'{number}.png'), rgb[..., ::-1])
    subprocess.run(
        [sys.executable, REPOSITORY / 'scripts' / 'spoil_photos.py', tmp_path / 'photos', tmp_path / 'spoiled'],
        check=True,
        capture_output=True,
    )
    names = sorted(path.name for path in (tmp_path / 'spoiled').iterdir())
    assert len(names) == len(crops)
    spoiled = {name: what for name in names for what in ('jpeg', 'enlarged', 'noisy') if what in name}
    assert sorted(spoiled.values()) == ['enlarged', 'jpeg', 'jpeg', 'jpeg', 'noisy']
    study = BenchmarkFile.load(REPOSITORY / 'options' / 'benchmark' / 'curation_study.yml')
    (filters,) = [
        change.partition('=')[2] for change in study.options.sets['curated_all'].force_yml if 'source_filters' in change
    ]
    folder = run_extract(
        ExtractOptions(
            dataroot=str(tmp_path / 'spoiled'),
            save_dir=str(tmp_path / 'out'),
            patch_size=64,
            source_filters=yaml.safe_load(filters),
        )
    )
    with (folder / 'quarantine.csv').open() as file:
        found = {row['source']: row['reason'] for row in csv.DictReader(file)}
    reasons = {'jpeg': 'blockiness', 'enlarged': 'upscaled', 'noisy': 'noise'}
    assert found == {name: reasons[what] for name, what in spoiled.items()}
