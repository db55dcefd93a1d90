"""The JSON schema of option files: current, named by every file, and true of every file."""

import json
from pathlib import Path
from typing import Any

import pytest
from support import REPOSITORY

from basicsr_distill.cli import main
from basicsr_distill.config import SCHEMA_KINDS
from basicsr_distill.config.schema import schema_text
from basicsr_distill.config.yaml_files import load_option_file

FILES = sorted((REPOSITORY / 'options').rglob('*.yml'))


def kind_of(path: Path) -> str:
    folder = path.relative_to(REPOSITORY / 'options').parts[0]
    return {'distill': 'recipe', 'benchmark': 'benchmark'}.get(folder, 'experiment')


def as_an_editor_reads(value: Any) -> Any:
    """YAML 1.2 has no truth value ``off``."""
    if isinstance(value, dict):
        return {
            key: 'off' if key == 'mode' and part is False else as_an_editor_reads(part) for key, part in value.items()
        }
    return value


@pytest.mark.parametrize('kind', SCHEMA_KINDS)
def test_what_is_printed_lies_in_schemas(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['schema', kind]) == 0
    printed = capsys.readouterr().out
    assert printed == schema_text(kind)
    folder = REPOSITORY / 'schemas'
    assert printed == (folder / f'{kind}.schema.json').read_text(), f'basicsr schema {kind} > schemas/{kind}...'
    assert {path.name for path in folder.iterdir()} == {f'{name}.schema.json' for name in SCHEMA_KINDS}


def test_every_option_file_names_its_schema_first() -> None:
    for path in FILES:
        first = path.read_text(encoding='utf-8').splitlines()[0]
        assert first.startswith('# yaml-language-server: $schema='), path
        named = (path.parent / first.split('=', 1)[1]).resolve()
        assert named == (REPOSITORY / 'schemas' / f'{kind_of(path)}.schema.json').resolve(), path


@pytest.mark.parametrize('kind', SCHEMA_KINDS)
def test_option_files_are_valid_and_misspelt_ones_are_not(kind: str) -> None:
    jsonschema = pytest.importorskip('jsonschema')
    rules = json.loads((REPOSITORY / 'schemas' / f'{kind}.schema.json').read_text())
    jsonschema.Draft7Validator.check_schema(rules)
    validator = jsonschema.Draft7Validator(rules)
    for path in FILES:
        if kind_of(path) == kind:
            assert list(validator.iter_errors(as_an_editor_reads(load_option_file(path)))) == [], path
    name = {
        'recipe': 'distill/demo.yml',
        'experiment': 'train/EDSR/train_EDSR_Mx4_DIV2K.yml',
        'benchmark': 'benchmark/cpu_study.yml',
    }[kind]
    options = load_option_file(REPOSITORY / 'options' / name)
    if kind == 'benchmark':
        options['benchmark']['sead'] = 1
        options['benchmark']['budget']['iter'] = 1
        assert {tuple(error.path) for error in validator.iter_errors(options)} == {
            ('benchmark',),
            ('benchmark', 'budget'),
        }
        return
    options['datasets']['train']['use_hflp'] = True
    options['logger']['print_frq'] = 1
    assert {error.path[0] for error in validator.iter_errors(options)} == {'datasets', 'logger'}
