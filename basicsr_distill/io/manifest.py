"""What a folder of patches or images says about itself: the one table ``manifest.csv``, BasicSR's ``meta_info.txt``,
records in JSON, and the names of its parts.

Rows are plain dataclasses; the column names are their field names, so a table explains itself and survives any file
name that CSV quoting can hold (spaces, newlines, unicode).
"""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from basicsr_distill.errors import InputError
from basicsr_distill.io.files import replacing, safe_join, sha256_file, write_atomic

MANIFEST_NAME = 'manifest.csv'
META_INFO_NAME = 'meta_info.txt'
METADATA_NAME = 'metadata.csv'
STAGE_NAME = 'stage.json'
# Folders of the patches and of a distilled set's images.
IMAGES_FOLDER = 'images'
HR_FOLDER = 'HR'


@dataclass(frozen=True)
class PatchRow:
    """One real patch.

    name: file name of the patch, ASCII, no spaces.  source: image it was cut from, relative to its root.
    source_sha256: of the image file.  top, left, size: window in the image, pixels.
    metric: how psnr_db was taken.  psnr_db: after bicubic down and up, decibels, finite.  label: -1 before clustering.
    reduced_by: factor that the image was shrunk by before the window was cut.
    """

    name: str
    source: str
    source_sha256: str
    top: int
    left: int
    size: int
    metric: str
    psnr_db: float
    label: int = -1
    reduced_by: float = 1.0


@dataclass(frozen=True)
class SetRow:
    """What every set says of an image, whoever made it: file name in HR/, cluster, and number within the cluster."""

    name: str
    label: int
    index: int


@dataclass(frozen=True)
class SelectRow:
    """One real patch of a set.

    name: file name in HR/ and LR_bicubic/X{scale}/.  label: its cluster, 0 without clusters.  index: number of the
    choice within the label, from 0.  seed, method: of the stage.  patch: its name among the patches.  source,
    source_sha256, top, left, size: see :class:`PatchRow`.  psnr_db: of the patch after bicubic down and up, decibels.
    """

    name: str
    label: int
    index: int
    seed: int
    method: str
    patch: str
    source: str
    source_sha256: str
    top: int
    left: int
    size: int
    metric: str
    psnr_db: float


@dataclass(frozen=True)
class SampleRow:
    """One distilled image.

    name: file name in HR/ and LR_bicubic/X{scale}/.  label: its cluster.  index: number of the draw within the label,
    from 0; draws that were not chosen leave gaps.  seed: of the stage, the same in every row; an image's noise comes
    from (seed, label, index).  checkpoint_sha256: of the weights that drew it.  prototype: the real patch it started
    from (empty from pure noise).  psnr_db: of the image after bicubic down and up, decibels (inf never occurs).
    """

    name: str
    label: int
    index: int
    seed: int
    checkpoint_sha256: str
    guidance_scale: float
    prototype: str
    metric: str
    psnr_db: float


Row = TypeVar('Row', PatchRow, SetRow, SampleRow, SelectRow)
# Rows that are written.
TableRow = PatchRow | SampleRow | SelectRow


def write_table(path: Path, rows: Iterable[TableRow], columns: type[TableRow]) -> None:
    """Write rows as CSV, atomically; floats with nine significant digits, so that equal tables are equal bytes.

    Raises:
        ValueError: a float is not finite.
    """
    names = [field.name for field in fields(columns)]
    write_csv(path, names, ([_cell(getattr(row, name)) for name in names] for row in rows))


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str | int]]) -> None:
    """Write a table atomically and line by line, as UTF-8 (file names that are not UTF-8 keep their bytes)."""
    with replacing(path) as temp, temp.open('w', newline='', encoding='utf-8', errors='surrogateescape') as file:
        plain = csv.writer(file, lineterminator='\n')
        # Before Python 3.13 a carriage return is only quoted where it is part of the line end.
        quoting = csv.writer(file, lineterminator='\n', quoting=csv.QUOTE_ALL)
        plain.writerow(header)
        for row in rows:
            (quoting if any('\r' in str(cell) for cell in row) else plain).writerow(row)


def _cell(value: str | int | float) -> str | int:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f'A table must not hold {value}.')
        return f'{value:.9g}'
    return value


def read_table(path: Path, row_type: type[Row]) -> list[Row]:
    """Read a manifest; columns that earlier versions did not write have the defaults of their fields.

    Raises:
        InputError: the file is missing, lacks a column, holds a malformed number, or names a path outside its folder.
    """
    converters = {
        field.name: {'int': int, 'float': float}.get(getattr(field.type, '__name__', str(field.type)), str)
        for field in fields(row_type)
    }
    optional = {field.name for field in fields(row_type) if field.default is not MISSING}
    rows = []
    try:
        with path.open(newline='', encoding='utf-8', errors='surrogateescape') as file:
            reader = csv.DictReader(file)
            missing = [name for name in converters if name not in (reader.fieldnames or [])]
            if absent := [name for name in missing if name not in optional]:
                raise InputError(f'{path}: column {absent[0]!r} is missing; write the table again with its stage.')
            for name in missing:
                del converters[name]
            for line in reader:
                row = row_type(**{name: convert(line[name]) for name, convert in converters.items()})
                safe_join(path.parent, row.name, listed_in=path)
                rows.append(row)
    except OSError as error:
        raise InputError(f'{path}: {error.strerror}; run the stage that writes it first.') from error
    except (ValueError, TypeError) as error:
        raise InputError(f'{path}: line {reader.line_num} is malformed ({error}).') from error
    return rows


def read_labels(path: Path) -> dict[str, int]:
    """Labels by patch name, of the cluster stage's ``labels.csv``.

    Raises:
        InputError: the file is missing or malformed, or a label is negative.
    """
    try:
        with path.open(newline='', encoding='utf-8') as file:
            labels = {line['name']: int(line['label']) for line in csv.DictReader(file)}
    except OSError as error:
        raise InputError(f'{path}: {error.strerror}; run the cluster stage first.') from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f'{path}: not a table of name and label ({error}); run the cluster stage again.') from error
    if min(labels.values(), default=0) < 0:
        raise InputError(f'{path}: holds a negative label; run the cluster stage again.')
    return labels


def labels_of(rows: Sequence[PatchRow], patches: Path, labels_file: Path) -> list[int]:
    """Labels of patches, by name, from the ``labels.csv`` of the cluster stage.

    Args:
        rows: the patches.
        patches: folder that they lie in.
        labels_file: in the folder of the clusters, or a table of the user's own, which has no record beside it.

    Raises:
        InputError: the table cannot be read, lacks a patch, or holds the clusters of other patches.
    """
    labels = read_labels(labels_file)
    clustered = read_json(labels_file.parent / STAGE_NAME).get('inputs', {}).get('patches')
    record = patches / STAGE_NAME
    if clustered is not None and clustered != (sha256_file(record) if record.is_file() else None):
        raise InputError(
            f'{labels_file.parent}: holds the clusters of other patches than those in {patches}; run the '
            'stage cluster on these, with another cluster.save_dir.'
        )
    missing = [row.name for row in rows if row.name not in labels]
    if missing:
        raise InputError(f'{labels_file}: no label for {missing[0]} ({len(missing)} such patches); cluster again.')
    return [labels[row.name] for row in rows]


def write_meta_info(path: Path, names: Iterable[str], shape: Sequence[int]) -> None:
    """Write BasicSR's list, ``name (h,w,c)`` a line; names must have no spaces."""
    size = ','.join(str(n) for n in shape)
    with replacing(path) as temp, temp.open('w', encoding='utf-8', newline='\n') as file:
        file.writelines(f'{name} ({size})\n' for name in names)


def write_metadata(folder: Path, rows: Iterable[TableRow], lr_folder: Path) -> None:
    """Write ``metadata.csv``, by which ``datasets.load_dataset('imagefolder', data_dir=folder)`` reads a set.

    It lies beside HR/, not in it: stock BasicSR takes every file there for an image. Only the files it names are read,
    no montage; ``*file_name`` columns become images.

    Args:
        folder: of the set.
        rows: its images.
        lr_folder: of the LR images, inside the set.
    """
    lr = lr_folder.relative_to(folder).as_posix()
    write_csv(
        folder / METADATA_NAME,
        ('file_name', 'lr_file_name', 'label', 'psnr_db'),
        ((f'{HR_FOLDER}/{row.name}', f'{lr}/{row.name}', row.label, _cell(row.psnr_db)) for row in rows),
    )


def json_text(record: Mapping[str, Any]) -> str:
    """A record as JSON with sorted keys, so that equal records are equal bytes.

    Raises:
        ValueError: a float is not finite.
    """
    return json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + '\n'


def read_json(path: Path) -> dict[str, Any]:
    """A record that :func:`write_json` wrote; empty where there is none.

    Raises:
        InputError: the file is damaged.
    """
    try:
        record = json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}
    except (ValueError, RecursionError) as error:
        raise InputError(
            f'{path}: is no JSON ({error}); remove the folder that it lies in, and run the command again that made it.'
        ) from error
    if not isinstance(record, dict):
        raise InputError(
            f'{path}: holds a {type(record).__name__} instead of a record; remove the folder that it lies '
            'in, and run the command again that made it.'
        )
    return record


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write :func:`json_text` atomically."""
    write_atomic(path, json_text(record))
