"""Scores of images that were computed elsewhere: CSV files with a header, and lines of a name and a number."""

import csv
import math
from collections.abc import Iterator
from pathlib import Path

from basicsr_distill.errors import InputError


def read_score_file(path: Path, name_column: str, score_column: str, where: str) -> dict[str, float]:
    """Scores by name, as the file writes it; a name whose cell is empty has none.

    Args:
        path: ``.csv`` with a header; else a name and a number a line, with a blank, a comma, a tab or a colon between.
        name_column: of a CSV file.
        score_column: of a CSV file.
        where: how messages name the place.

    Raises:
        InputError: the file cannot be read, has no such column, or holds what is no finite number.
    """
    try:
        text = path.read_text(encoding='utf-8', errors='surrogateescape')
    except OSError as error:
        raise InputError(f'{where}: {error.strerror}; give a file of names and scores.') from error
    rows = (
        _table_rows(text, name_column, score_column, where)
        if path.suffix.lower() == '.csv'
        else _line_rows(text, where)
    )
    scores = {}
    for number, (name, value) in enumerate(rows, 1):
        try:
            scores[name.strip()] = float(value)
        except ValueError:
            raise InputError(f'{where}: score {number}, {value!r}, is not a number.') from None
        if not math.isfinite(scores[name.strip()]):
            raise InputError(f'{where}: the score of {name.strip()} is not finite.')
    return scores


def _table_rows(text: str, name_column: str, score_column: str, where: str) -> Iterator[tuple[str, str]]:
    reader = csv.DictReader(text.splitlines())
    for column in (name_column, score_column):
        if column not in (reader.fieldnames or []):
            raise InputError(f'{where}: has no column {column!r}; it has {", ".join(reader.fieldnames or [])}.')
    for line in reader:
        if (value := line[score_column] or '').strip():
            yield line[name_column] or '', value


def _line_rows(text: str, where: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        if line.strip():
            pair = line.replace(',', ' ').replace('\t', ' ').rsplit(maxsplit=1)
            if len(pair) != 2:
                raise InputError(f'{where}: {line.strip()!r} is not a name and a number.')
            yield pair[0].rstrip(' :'), pair[1]
