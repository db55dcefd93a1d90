import hashlib
import os
from pathlib import Path

import pytest

from basicsr_distill.errors import InputError
from basicsr_distill.io.files import (
    remove_temporaries,
    replacing,
    safe_join,
    sha256_file,
    write_atomic,
)


def test_write_atomic_writes_utf8_and_bytes(tmp_path: Path) -> None:
    write_atomic(tmp_path / 'a', 'grün\n')
    write_atomic(tmp_path / 'b', b'\x00\xff')
    assert (tmp_path / 'a').read_bytes() == 'grün\n'.encode()
    assert (tmp_path / 'b').read_bytes() == b'\x00\xff'
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a', 'b']


def test_a_failure_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / 'table'
    path.write_text('old')
    with pytest.raises(RuntimeError, match='midway'), replacing(path) as temp:
        temp.write_text('half of the n')
        assert path.read_text() == 'old'
        raise RuntimeError('midway')
    assert path.read_text() == 'old'
    assert [entry.name for entry in tmp_path.iterdir()] == ['table']


def test_the_data_is_on_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, 'fsync', lambda descriptor: (steps.append('fsync'), sync(descriptor))[1])
    monkeypatch.setattr(os, 'replace', lambda *names: (steps.append('replace'), replace(*names))[1])
    write_atomic(tmp_path / 'x', 'x')
    assert steps == ['fsync', 'replace']


def test_remove_temporaries_removes_nothing_else(tmp_path: Path) -> None:
    (tmp_path / 'deep').mkdir()
    for name in ('a.png.part', 'deep/b.csv.part', 'deep/b.csv', 'part'):
        (tmp_path / name).write_text('x')
    remove_temporaries(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob('*') if path.is_file()) == ['b.csv', 'part']


def test_sha256_equals_hashlib_over_block_borders(tmp_path: Path) -> None:
    data = os.urandom((1 << 20) + 7)
    (tmp_path / 'x').write_bytes(data)
    assert sha256_file(tmp_path / 'x') == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize('name', ['/etc/passwd', '../x', 'a/../../x', '..'])
def test_paths_out_of_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r'manifest\.csv: .* points outside'):
        safe_join(tmp_path, name, listed_in=tmp_path / 'manifest.csv')
    assert safe_join(tmp_path, 'a/..b.png', listed_in=tmp_path) == tmp_path / 'a' / '..b.png'
