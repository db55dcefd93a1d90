"""What a stage's output folder says about itself: ``stage.json``, the lock, and what may be skipped or resumed.

``stage.json`` is written last and atomically, so its presence means that the folder is whole. While a stage works,
``stage.started.json`` holds the options and inputs it began with: a rerun with the same ones resumes, with others it is
refused. The processor and the versions that made a folder are recorded beside them and not compared: they say where the
same bytes can be expected again, not whether the folder may be used. What only an unfinished stage needs lies in
``parts/``, which goes once ``stage.json`` stands. Nothing here imports torch, so that skipping finished stages is
quick.
"""

import json
import platform
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from basicsr_distill.config.differences import describe, differences
from basicsr_distill.errors import InputError
from basicsr_distill.io.files import TEMP_SUFFIX, remove_temporaries, sha256_file
from basicsr_distill.io.locks import LOCK_FILES, locked_folder
from basicsr_distill.io.manifest import STAGE_NAME, json_text, read_json, write_json

STARTED_NAME = 'stage.started.json'
PARTS_FOLDER = 'parts'
_SHOWN_CHANGES = 6
_RECORDED_PACKAGES = (
    'basicsr-distill',
    'basicsr',
    'torch',
    'diffusers',
    'open_clip_torch',
    'scikit-learn',
    'numpy',
    'opencv-python',
    'deflate',
)


def fingerprint_stage(folder: Path) -> str:
    """Digest of a finished stage's ``stage.json`` (which holds the digests of its tables).

    Raises:
        InputError: the stage has not finished there.
    """
    path = folder / STAGE_NAME
    if not path.is_file():
        raise InputError(f'{folder}: no {STAGE_NAME} there; run the stage that makes this folder first.')
    return sha256_file(path)


def read_stage(folder: Path) -> dict[str, Any]:
    """The content of a finished stage's ``stage.json``; empty if there is none."""
    return read_json(folder / STAGE_NAME)


def photo_folders(patches: Path) -> list[str]:
    """The folders that an extract stage took its images from, as its options named them."""
    roots = read_stage(patches).get('options', {}).get('dataroot', [])
    return [roots] if isinstance(roots, str) else list(roots)


def refuse_overlap(save_dir: str, photos: Iterable[str], where: str) -> None:
    """Refuse an output folder whose pictures a later run would take for photographs.

    Args:
        save_dir: output folder of a stage.
        photos: folders of photographs.
        where: the option's name, for the message.

    Raises:
        InputError: one of the folders is or lies inside the other.
    """
    folder = Path(save_dir).resolve()
    for photo_folder in photos:
        root = Path(photo_folder).resolve()
        if folder == root or root in folder.parents or folder in root.parents:
            raise InputError(
                f'{where}: {save_dir} and the photographs in {photo_folder} must lie apart, or a later run would '
                'take our pictures for photographs; choose another save_dir.'
            )


@dataclass(frozen=True)
class StagePlan:
    """What a stage is asked to make, to be held against what its folder says about itself."""

    folder: Path
    stage: str  # its name
    options: Mapping[str, Any]  # plain JSON values
    inputs: Mapping[str, str]  # a fingerprint for every input

    @property
    def header(self) -> dict[str, Any]:
        """As the records hold it."""
        header: dict[str, Any] = json.loads(
            json_text({'stage': self.stage, 'options': dict(self.options), 'inputs': dict(self.inputs)})
        )
        return header

    @property
    def is_done(self) -> bool:
        """Whether the folder holds exactly this, whole."""
        return bool(read_stage(self.folder)) and not self.changes

    @property
    def changes(self) -> str:
        """How this differs from what the folder holds, or has begun; empty where it does not, or nothing is there."""
        done, header = read_stage(self.folder), self.header
        earlier = done or read_json(self.folder / STARTED_NAME)
        if not earlier:
            return ''
        found = list(differences({key: earlier.get(key) for key in header}, header))
        if not found:
            return next(
                (
                    f'{name} was changed after the stage finished'
                    for name, digest in done.get('outputs', {}).items()
                    if _digest(self.folder / name) != digest
                ),
                '',
            )
        more = f' and {len(found) - _SHOWN_CHANGES} more' if len(found) > _SHOWN_CHANGES else ''
        return describe(found[:_SHOWN_CHANGES]) + more

    def begin(self) -> None:
        """Record what the folder is about to hold; a stage that is entered with the same plan goes on from there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / STARTED_NAME, self.header)

    @classmethod
    def begun(cls, folder: Path) -> 'StagePlan':
        """The plan of a folder, as it was begun or finished.

        Raises:
            InputError: nothing was begun there.
        """
        record = read_stage(folder) or read_json(folder / STARTED_NAME)
        if not record:
            raise InputError(f'{folder}: no {STARTED_NAME} there; run the benchmark again.')
        return cls(folder, record['stage'], record['options'], record['inputs'])


@dataclass(frozen=True)
class StageResult:
    """What a stage has made."""

    folder: Path
    counts: Mapping[str, int]  # kept and dropped, by reason
    done_before: bool  # an earlier run had made exactly this


@dataclass(frozen=True)
class StageRun:
    """A stage at work in ``folder``; ``finished`` says that an earlier run already did exactly this."""

    folder: Path
    header: dict[str, Any]
    finished: bool
    resumed: bool
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def result(self) -> StageResult:
        """What the finished folder holds; on a network disk another rank may not see yet what the first one wrote."""
        return StageResult(self.folder, (self.record or read_stage(self.folder)).get('counts', {}), self.finished)

    @property
    def parts(self) -> Path:
        """Folder of what only an unfinished stage needs."""
        return self.folder / PARTS_FOLDER

    def finish(self, counts: Mapping[str, int], outputs: Iterable[str] = (), **facts: Any) -> None:
        """Publish the folder: write ``stage.json`` with counts, digests of the ``outputs`` named, and other facts."""
        remove_temporaries(self.folder)
        record = {
            **self.header,
            'versions': _versions(),
            'processor': _processor(),
            'counts': dict(counts),
            'outputs': {name: sha256_file(self.folder / name) for name in outputs},
            **facts,
        }
        write_json(self.folder / STAGE_NAME, record)
        _remove_leftovers(self.folder)

    def clear(self) -> None:
        """Empty the folder, so that nothing half-made stands in the way of a run with corrected options."""
        for path in self.folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name not in LOCK_FILES:
                path.unlink()


@contextmanager
def stage_folder(plan: StagePlan) -> Iterator[StageRun]:
    """Enter a stage's output folder: make it, lock it, compare it with what is asked.

    Raises:
        InputError: the folder cannot be written, another run holds it, or it holds the (half-)finished work of other
            options or inputs.
    """
    folder, header = plan.folder, plan.header
    with locked_folder(folder):
        done = read_stage(folder)
        started_path = folder / STARTED_NAME
        started = read_json(started_path)
        if changes := plan.changes:
            raise InputError(
                f'{folder}: was made with other options or inputs ({changes}); choose '
                f'{_elsewhere(plan.stage)} or remove the folder.'
            )
        # A run killed at its very start leaves the first file unfinished.
        if not (done or started) and (
            {path.name for path in folder.iterdir()} - LOCK_FILES - {f'{STARTED_NAME}{TEMP_SUFFIX}'}
        ):
            raise InputError(f'{folder}: holds files of another origin; choose {_elsewhere(plan.stage)}.')
        if not done:
            remove_temporaries(folder)
            write_json(started_path, header)
        else:
            _remove_leftovers(folder)
        yield StageRun(folder, header, finished=bool(done), resumed=bool(started) and not done, record=done)


def _digest(path: Path) -> str:
    return sha256_file(path) if path.is_file() else ''


def _elsewhere(stage: str) -> str:
    return 'another name for the experiment' if stage == 'finetune' else 'another save_dir'


def _versions() -> dict[str, str]:
    versions = {}
    for package in _RECORDED_PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _processor() -> str:
    """The name of this machine's processor, or its architecture where the system has no name for it."""
    try:
        found = re.search(r'^model name\s*:\s*(.+)$', Path('/proc/cpuinfo').read_text(encoding='utf-8'), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _remove_leftovers(folder: Path) -> None:
    """Remove what only an unfinished stage needs, once ``stage.json`` stands: one killed before it can still resume."""
    (folder / STARTED_NAME).unlink(missing_ok=True)
    shutil.rmtree(folder / PARTS_FOLDER, ignore_errors=True)
