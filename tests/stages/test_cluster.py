import csv
import json
import logging
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
from dying import die_at_replacement
from support import run_cluster, run_extract, torchrun

from basicsr_distill.config.sections.cluster import ClusterOptions
from basicsr_distill.config.sections.extract import ExtractOptions
from basicsr_distill.errors import InputError
from basicsr_distill.features.encoders import TextureEncoder
from basicsr_distill.io.images import read_rgb
from basicsr_distill.io.manifest import PatchRow, read_table
from basicsr_distill.stages import cluster, features


@pytest.fixture
def patches(photo_folder: Path) -> Path:
    return run_extract(
        ExtractOptions(
            dataroot=str(photo_folder), save_dir=str(photo_folder.parent / 'patches'), patch_size=64, stride=48
        )
    )


def options(patches: Path, name: str = 'clusters', **changes: object) -> ClusterOptions:
    values = {'save_dir': str(patches.parent / name), 'encoder': {'type': 'texture'}, 'num_clusters': 3}
    return ClusterOptions.model_validate({**values, **changes})


def labels_of(folder: Path) -> list[int]:
    with (folder / 'labels.csv').open(newline='') as file:
        return [int(line['label']) for line in csv.DictReader(file)]


def test_every_patch_gets_the_label_of_its_nearest_centre(patches: Path) -> None:
    folder = run_cluster(options(patches), patches)
    rows = read_table(patches / 'manifest.csv', PatchRow)
    features, centers = np.load(folder / 'features.npy'), np.load(folder / 'centers.npy')
    expected = np.stack([TextureEncoder().prepare(read_rgb(patches / 'images' / row.name)) for row in rows])
    np.testing.assert_array_equal(features, expected)
    labels = labels_of(folder)
    gaps = np.linalg.norm(features[:, None].astype(np.float64) - centers[None], axis=2)
    assert labels == gaps.argmin(axis=1).tolist()
    with (folder / 'labels.csv').open(newline='') as file:
        assert [line['name'] for line in csv.DictReader(file)] == [row.name for row in rows]
    record = json.loads((folder / 'stage.json').read_text())
    assert record['cluster_sizes'] == np.bincount(labels).tolist() == sorted(np.bincount(labels).tolist(), reverse=True)
    assert record['counts'] == {'patches': len(rows), 'clusters': 3}
    assert sorted(path.name for path in folder.iterdir()) == [
        'centers.npy',
        'features.npy',
        'labels.csv',
        'map.png',
        'montage.png',
        'stage.json',
    ]


def test_the_montage_shows_the_patches_nearest_each_centre(patches: Path) -> None:
    folder = run_cluster(options(patches), patches)
    rows = read_table(patches / 'manifest.csv', PatchRow)
    features, centers, labels = (
        np.load(folder / 'features.npy'),
        np.load(folder / 'centers.npy'),
        np.array(labels_of(folder)),
    )
    montage = read_rgb(folder / 'montage.png')
    for label in range(3):
        members = np.flatnonzero(labels == label)
        nearest = members[np.linalg.norm(features[members] - centers[label], axis=1).argmin()]
        patch = cv2.resize(read_rgb(patches / 'images' / rows[nearest].name), (128, 128), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(montage[132 * label : 132 * label + 128, :128], patch)


def test_the_result_does_not_depend_on_workers_and_is_skipped_afterwards(patches: Path, tree_digests) -> None:
    folder = run_cluster(options(patches, num_workers=1), patches)
    one, written = tree_digests(folder), (folder / 'stage.json').stat().st_mtime_ns
    run_cluster(options(patches, num_workers=3), patches)
    assert (folder / 'stage.json').stat().st_mtime_ns == written
    shutil.rmtree(folder)
    assert tree_digests(run_cluster(options(patches, num_workers=3), patches)) == one


_RANKS = """
import sys
from pathlib import Path
from basicsr_distill.runtime import distributed
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.stages import cluster, features
cluster._PATCHES_PER_PART = 32
distributed.init('pytorch')
section = {'save_dir': sys.argv[1], 'encoder': {'type': 'texture'}, 'num_clusters': 3}
extract = {'dataroot': 'photos', 'save_dir': sys.argv[2]}
cluster.run(Recipe.parse(Path('x.yml'), {'extract': extract, 'cluster': section}))
distributed.cleanup()
"""


@pytest.mark.long
def test_the_result_does_not_depend_on_ranks(patches: Path, tmp_path: Path, tree_digests) -> None:
    folder = run_cluster(options(patches), patches)
    one = tree_digests(folder)
    shutil.rmtree(folder)
    (tmp_path / 'ranks.py').write_text(_RANKS)
    torchrun(tmp_path / 'ranks.py', folder, patches)
    assert tree_digests(folder) == one


def _die_before_replacement(number: int, given: ClusterOptions, patches: Path) -> None:
    die_at_replacement(2 * number)
    run_cluster(given, patches)
    os._exit(0)


@pytest.mark.long
def test_killed_between_any_two_writes_it_ends_with_the_same_tree(
    patches: Path, tree_digests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, '_PATCHES_PER_PART', 32)
    folder = run_cluster(options(patches), patches)
    whole = tree_digests(folder)
    shutil.rmtree(folder)
    fork = multiprocessing.get_context('fork')
    for number in range(100):
        process = fork.Process(target=_die_before_replacement, args=(number, options(patches), patches))
        process.start()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        assert tree_digests(run_cluster(options(patches), patches)) == whole
        shutil.rmtree(folder)
    assert number >= 8


def test_features_are_not_encoded_twice_on_resume(patches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, '_PATCHES_PER_PART', 32)
    monkeypatch.setattr(cluster, 'choose_num_clusters', lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run_cluster(options(patches, num_clusters='auto'), patches)
    monkeypatch.setattr(cluster, 'choose_num_clusters', lambda *_: 2)
    monkeypatch.setattr(TextureEncoder, 'prepare', lambda *_: pytest.fail('encoded again'))
    assert set(labels_of(run_cluster(options(patches, num_clusters='auto'), patches))) == {0, 1}


def test_auto_and_balance(patches: Path) -> None:
    assert len(set(labels_of(run_cluster(options(patches, 'auto', num_clusters='auto'), patches)))) >= 2
    sizes = np.bincount(labels_of(run_cluster(options(patches, 'equal', balance=True), patches)))
    assert sizes.max() - sizes.min() <= 1


def test_more_clusters_than_patches_is_refused_before_any_work(patches: Path) -> None:
    with pytest.raises(InputError, match=r'cluster\.num_clusters: 5000 clusters of \d+ patches; ask for at most'):
        run_cluster(options(patches, num_clusters=5000), patches)
    assert not (patches.parent / 'clusters').exists()


def test_one_cluster_and_one_patch_each(patches: Path) -> None:
    assert set(labels_of(run_cluster(options(patches, 'one', num_clusters=1), patches))) == {0}
    count = len(read_table(patches / 'manifest.csv', PatchRow))
    assert sorted(labels_of(run_cluster(options(patches, 'all', num_clusters=count), patches))) == list(range(count))


def test_identical_features_are_a_warning_and_dense_labels(
    patches: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(TextureEncoder, 'prepare', lambda self, rgb: np.float32([rgb[0, 0, 0] > 100, 1]))
    with caplog.at_level(logging.WARNING):
        folder = run_cluster(options(patches, num_clusters=5), patches)
    assert set(labels_of(folder)) == {0, 1}
    assert 'Only 2 distinct clusters of 5' in caplog.text
    assert np.load(folder / 'centers.npy').shape == (2, 2)


def test_a_feature_that_is_not_finite_names_its_patch(patches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    third = read_table(patches / 'manifest.csv', PatchRow)[2].name
    plain = TextureEncoder.encode

    def broken(self: TextureEncoder, prepared: list[np.ndarray]) -> np.ndarray:
        features = plain(self, prepared)
        features[2, 5] = np.nan
        return features

    monkeypatch.setattr(TextureEncoder, 'encode', broken)
    with pytest.raises(InputError, match=f'{third}: the encoder gives features that are not finite'):
        run_cluster(options(patches), patches)


def test_missing_or_changed_patches_are_refused(patches: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'no stage\.json there; run the stage'):
        run_cluster(options(patches), tmp_path / 'nowhere')
    run_cluster(options(patches), patches)
    record = json.loads((patches / 'stage.json').read_text())
    (patches / 'stage.json').write_text(json.dumps({**record, 'threshold_db': 1}))
    with pytest.raises(InputError, match=r'inputs\.patches'):
        run_cluster(options(patches), patches)


def test_clusters_among_the_photographs_are_refused(patches: Path) -> None:
    with pytest.raises(InputError, match=r'cluster\.save_dir: .* must lie apart'):
        run_cluster(options(patches, 'photos/clusters'), patches)
    assert not (patches.parent / 'photos' / 'clusters').exists()


def test_missing_weights_leave_the_folder_free_for_another_encoder(patches: Path) -> None:
    with pytest.raises(InputError, match='cannot be loaded'):
        run_cluster(options(patches, encoder={'type': 'open_clip', 'name': 'local-dir:/nowhere'}), patches)
    assert (run_cluster(options(patches), patches) / 'stage.json').is_file()
