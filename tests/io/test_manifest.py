import csv
import os
from dataclasses import replace
from pathlib import Path

import pytest

from basicsr_distill.errors import InputError
from basicsr_distill.io.manifest import PatchRow, SampleRow, read_table, write_csv, write_meta_info, write_table

ROW = PatchRow('a_000000_t00000_l00000.png', 'a.png', 'f' * 64, 0, 32, 64, 'matlab_rgb', 23.25, 4)
SAMPLE = SampleRow('0_0001.png', 0, 1, 17, 'e' * 64, 1.5, ROW.name, 'matlab_rgb', 22.125)


def test_rows_round_trip(tmp_path: Path) -> None:
    odd = [
        'sp ace.png',
        'new\nline.png',
        'return\r.png',
        'comma,"quote".png',
        'grün.png',
        '写真.png',
        os.fsdecode(b'\xe9.png'),
    ]
    rows = [
        replace(ROW, name=f'{number}.png', source=source, psnr_db=20 + number / 3) for number, source in enumerate(odd)
    ]
    write_table(tmp_path / 'manifest.csv', rows, PatchRow)
    loaded = read_table(tmp_path / 'manifest.csv', PatchRow)
    assert [row.source for row in loaded] == odd
    assert [row.psnr_db for row in loaded] == pytest.approx([row.psnr_db for row in rows], rel=1e-8)
    assert [replace(row, psnr_db=0) for row in loaded] == [replace(row, psnr_db=0) for row in rows]
    write_table(tmp_path / 'samples.csv', [SAMPLE], SampleRow)
    assert read_table(tmp_path / 'samples.csv', SampleRow) == [SAMPLE]


def test_the_table_is_plain_csv_with_nine_digits(tmp_path: Path) -> None:
    write_table(tmp_path / 'manifest.csv', [replace(ROW, psnr_db=23.1234567891)], PatchRow)
    with (tmp_path / 'manifest.csv').open(newline='') as file:
        (line,) = csv.DictReader(file)
    assert line['psnr_db'] == '23.1234568'
    assert line['top'] == '0'
    assert b'\r' not in (tmp_path / 'manifest.csv').read_bytes()


@pytest.mark.parametrize('value', [float('inf'), float('nan')])
def test_values_that_are_not_finite_are_never_written(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match='must not hold'):
        write_table(tmp_path / 'manifest.csv', [ROW, replace(ROW, psnr_db=value)], PatchRow)
    assert not list(tmp_path.iterdir())


def test_tables_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / 'manifest.csv'
    with pytest.raises(InputError, match=r'manifest\.csv: No such file or directory; run the stage'):
        read_table(path, PatchRow)
    path.write_text('name,source\n')
    with pytest.raises(InputError, match="column 'source_sha256' is missing"):
        read_table(path, PatchRow)
    write_table(path, [ROW], PatchRow)
    text = path.read_text()
    for broken in (text.replace(',32,', ',many,'), text.replace(',matlab_rgb,23.25,4', '')):
        path.write_text(broken)
        with pytest.raises(InputError, match=r'manifest\.csv: line 2 is malformed'):
            read_table(path, PatchRow)


@pytest.mark.parametrize('name', ['/etc/passwd', '../x.png'])
def test_names_out_of_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    write_table(tmp_path / 'manifest.csv', [replace(ROW, name=name)], PatchRow)
    with pytest.raises(InputError, match='points outside'):
        read_table(tmp_path / 'manifest.csv', PatchRow)


def test_write_csv_and_meta_info(tmp_path: Path) -> None:
    write_csv(tmp_path / 'labels.csv', ('name', 'label'), [('a b.png', 0), ('c.png', 1)])
    assert (tmp_path / 'labels.csv').read_text() == 'name,label\na b.png,0\nc.png,1\n'
    write_meta_info(tmp_path / 'meta_info.txt', ['a.png', 'b.png'], (64, 48, 3))
    assert (tmp_path / 'meta_info.txt').read_text() == 'a.png (64,48,3)\nb.png (64,48,3)\n'
