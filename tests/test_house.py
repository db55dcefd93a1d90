"""The shape of the package, read from its syntax trees."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import REPOSITORY

PACKAGE = REPOSITORY / 'basicsr_distill'
MAX_CLASS, MAX_FUNCTION = 150, 50
# Beginning of the comment, over a longer unit, that says why it stays whole.
REASON = '# Long: '
# Where a component's file may lie, and how it is named there.
COMPONENTS = {'archs': '_arch', 'data': '_dataset', 'losses': '_loss', 'metrics': '_metric', 'models': '_model'}
UNSAFE_MODULES = {'pickle', 'dill', 'cloudpickle', 'shelve', 'marshal'}

Module = tuple[Path, ast.Module]


def modules() -> list[Module]:
    return [(path, ast.parse(path.read_text(encoding='utf-8'))) for path in sorted(PACKAGE.rglob('*.py'))]


MODULES = modules()


def dotted(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def test_five_modules_at_the_root() -> None:
    assert {path.name for path in PACKAGE.glob('*.py')} == {
        '__init__.py',
        '__main__.py',
        'cli.py',
        'doctor.py',
        'errors.py',
    }


def test_models_holds_models_alone() -> None:
    assert {path.stem for path in (PACKAGE / 'models').glob('*.py') if not path.stem.endswith('_model')} == {'__init__'}


def test_units_are_small_or_say_why_not() -> None:
    long = []
    for path, tree in MODULES:
        lines = path.read_text(encoding='utf-8').splitlines()
        for node in ast.walk(tree):
            limit = MAX_CLASS if isinstance(node, ast.ClassDef) else MAX_FUNCTION
            if not isinstance(node, (ast.ClassDef, ast.FunctionDef)) or node.end_lineno - node.lineno < limit:
                continue
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            if not lines[first - 2].strip().startswith(REASON):
                long.append(f'{path.name}: {node.name}')
    assert long == []


def imports(tree: ast.Module) -> Iterator[str]:
    """Modules of the package that a module imports when it is imported itself."""

    def outside_functions(node: ast.AST) -> Iterator[ast.AST]:
        for child in ast.iter_child_nodes(node):
            # An import inside a function waits until the call, so it closes no circle.
            if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                yield child
                yield from outside_functions(child)

    for node in outside_functions(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f'{node.module}.{alias.name}' for alias in node.names)


def test_no_import_closes_a_circle() -> None:
    names = {dotted(path) for path, _ in MODULES}
    graph = {dotted(path): {name for name in imports(tree) if name in names} - {dotted(path)} for path, tree in MODULES}
    assert sum(map(len, graph.values())) > 200
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


def test_a_circle_would_be_seen() -> None:
    found = set(imports(ast.parse('from basicsr_distill.io import files\ndef f():\n    import basicsr_distill.cli\n')))
    assert found == {'basicsr_distill.io', 'basicsr_distill.io.files'}


@pytest.mark.parametrize('room', COMPONENTS)
def test_registered_components_lie_where_they_are_looked_for(room: str) -> None:
    """BasicSR's decorator in a file of another name would never run."""
    for path, tree in MODULES:
        registers = any(
            isinstance(node, ast.Attribute)
            and node.attr == 'register'
            and isinstance(node.value, ast.Name)
            and node.value.id.endswith('_REGISTRY')
            for node in ast.walk(tree)
        )
        if registers and path.parent.name == room:
            assert path.stem.endswith(COMPONENTS[room]), path


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_nothing_from_outside_is_executed() -> None:
    """No eval, exec, pickle or unsafe YAML; torch.load reads weights only."""
    for path, tree in MODULES:
        assert not UNSAFE_MODULES & {name.split('.')[0] for name in imports(tree)}
        for name, call in calls(tree):
            assert name not in ('eval', 'exec', 'yaml.load', 'yaml.unsafe_load', 'yaml.full_load'), path
            if name in ('torch.load', 'np.load'):
                key, safe = ('weights_only', True) if name == 'torch.load' else ('allow_pickle', False)
                given = {keyword.arg: getattr(keyword.value, 'value', None) for keyword in call.keywords}
                assert given.get(key) is safe, f'{path}: {ast.unparse(call)}'
