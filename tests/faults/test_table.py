"""Every row of docs/RELIABILITY.md names tests, and these exist."""

import ast
import re

import pytest
from support import REPOSITORY

ROWS = [
    line
    for line in (REPOSITORY / 'docs' / 'RELIABILITY.md').read_text(encoding='utf-8').splitlines()
    if line.startswith('| ') and not line.startswith(('| fault', '| ---'))
]


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row.split('|')[1].strip()[:40])
def test_a_row_has_its_tests(row: str) -> None:
    named = re.findall(r'`(tests/[\w/]+\.py)::(\w+)`', row)
    assert named and row.count('|') == 4
    for file, function in named:
        tree = ast.parse((REPOSITORY / file).read_text(encoding='utf-8'))
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, function


def test_the_fault_suite_is_in_the_table() -> None:
    """Rows are not all that it holds, but every file of it answers for one."""
    text = ' '.join(ROWS)
    for path in (REPOSITORY / 'tests' / 'faults').glob('test_*.py'):
        assert path.name == 'test_table.py' or f'tests/faults/{path.name}::' in text
