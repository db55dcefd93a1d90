"""The safe loader and the binding of sections."""

import itertools
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from pydantic import Field

from basicsr_distill.config.sections.base import Options, bind
from basicsr_distill.config.yaml_files import MAX_FILE_BYTES, load_option_file, parse_yaml
from basicsr_distill.errors import InputError


def test_plain_documents_agree_with_pyyaml() -> None:
    text = 'a: 1\nb: [1.5, x, null, true]\nc: {d: "no", e: &e [1, 2], f: *e}\ng: ~\n<<: {h: 2}\n'
    assert parse_yaml(text, 'x') == yaml.safe_load(text)


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('1e-4', 1e-4),
        ('1E5', 1e5),
        ('-2e+3', -2000.0),
        ('.5e1', 5.0),
        ('2.e2', 200.0),
        ('1_000', 1000),
        ('12', 12),
        ('!!float 5e3', 5000.0),
        ("!!float '1'", 1.0),
        ('1e-4x', '1e-4x'),
        ('e5', 'e5'),
    ],
)
def test_numbers(text: str, value: object) -> None:
    result = parse_yaml(text, 'x')
    assert result == value and type(result) is type(value)


def test_tags_are_refused_and_not_executed(tmp_path: Path) -> None:
    witness = tmp_path / 'executed'
    with pytest.raises(InputError, match=r'line 2.*not allowed'):
        parse_yaml(f'a: 1\nb: !!python/object/apply:os.mkdir ["{witness}"]', 'x.yml')
    assert not witness.exists()


@pytest.mark.parametrize(
    'text',
    [
        'a: 1\na: 2',
        'b: {c: 1, c: 2}',
        'a: [1',
        'a: &a [*a]',
        '? [1, 2]\n: 3',
        'a: ' + '[' * 200 + ']' * 200,
        'a: ' + '[' * 100_000,
        'a: 2024-13-45',
        '--- 1\n--- 2',
    ],
)
def test_malformed_documents_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r'x\.yml'):
        parse_yaml(text, 'x.yml')


def test_a_merged_key_may_be_replaced() -> None:
    text = 'a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}'
    assert parse_yaml(text, 'x')['b'] == yaml.safe_load(text)['b'] == {'x': 3, 'y': 2}


def test_alias_bomb_is_refused_before_it_expands() -> None:
    letters = 'abcdefghij'
    lines = ['a: &a [' + ','.join(['"lol"'] * 9) + ']']
    lines += [f'{now}: &{now} [{",".join([f"*{before}"] * 9)}]' for before, now in itertools.pairwise(letters)]
    with pytest.raises(InputError, match='aliases expand'):
        parse_yaml('\n'.join(lines), 'x.yml')


def test_files_that_are_no_option_files(tmp_path: Path) -> None:
    path = tmp_path / 'x.yml'
    with pytest.raises(InputError, match='cannot be read'):
        load_option_file(path)
    for content in (b'\xff\xfe\x00', b'- a\n- b\n', b'', b'#' * (MAX_FILE_BYTES + 1)):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r'x\.yml'):
            load_option_file(path)


class _Left(Options):
    type: Literal['left'] = 'left'
    radius: int = 1


class _Right(Options):
    type: Literal['right'] = 'right'
    height: int


class _Section(Options):
    shape: Annotated[_Left | _Right, Field(discriminator='type')] = _Left()
    threshold: float = 0


def test_binding() -> None:
    section = bind(_Section, {'shape': {'type': 'right', 'height': 3}, 'threshold': 2}, 'f.yml: s')
    assert section.shape == _Right(height=3) and section.threshold == 2


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'treshold': 1}, r"f\.yml: s: unknown key 'treshold'; did you mean 'threshold'\?"),
        ({'shape': {'type': 'right', 'heigth': 1}}, r"unknown key 'shape\.right\.heigth'; did you mean 'height'\?"),
        ({'shape': {'type': 'up'}}, "'up'.*'left', 'right'"),
        ({'shape': {'type': 'right'}}, r'shape\.right\.height: field required'),
        ({'threshold': 'high'}, 'threshold: .*number'),
        ([1], 'must be a mapping'),
    ],
)
def test_binding_explains_what_is_wrong(values: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        bind(_Section, values, 'f.yml: s')
