"""The shape of the package, read from its syntax trees."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import REPOSITORY

PACKAGE = REPOSITORY / 'basicsr_distill'
MAX_CLASS, MAX_FUNCTION = 170, 60
# Beginning of the comment, over a longer unit, that says why it stays whole.
REASON = '# Long: '
# Where a component's file may lie, and how it is named there.
COMPONENTS = {'archs': '_arch', 'data': '_dataset', 'losses': '_loss', 'metrics': '_metric', 'models': '_model'}

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


FORBIDDEN_CALLS = {'eval', 'exec', 'compile', '__import__'}
FORBIDDEN_MODULES = {'pickle', 'cPickle', 'dill', 'cloudpickle', 'shelve', 'marshal', 'joblib'}
FORBIDDEN_ATTRIBUTES = {
    ('yaml', 'load'),
    ('yaml', 'unsafe_load'),
    ('yaml', 'full_load'),
    ('os', 'system'),
    ('os', 'popen'),
}
SOURCES = [
    *sorted(REPOSITORY.glob('basicsr_distill/**/*.py')),
    *sorted(REPOSITORY.glob('scripts/*.py')),
    REPOSITORY / 'setup.py',
]


def faults_of(source: str) -> list[str]:
    """What a module does that none may."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module or ''] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found += [f'{node.lineno}: import {name}' for name in names if name.split('.')[0] in FORBIDDEN_MODULES]
        if not isinstance(node, ast.Call):
            continue
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        function = node.func
        if isinstance(function, ast.Name) and function.id in FORBIDDEN_CALLS:
            found.append(f'{node.lineno}: {function.id}')
        if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
            whole = (function.value.id, function.attr)
            if whole in FORBIDDEN_ATTRIBUTES:
                found.append(f'{node.lineno}: {".".join(whole)}')
            if whole == ('torch', 'load') and not _is(keywords.get('weights_only'), True):
                found.append(f'{node.lineno}: torch.load without weights_only=True')
            if whole in (('np', 'load'), ('numpy', 'load')) and not _is(keywords.get('allow_pickle'), False):
                found.append(f'{node.lineno}: np.load without allow_pickle=False')
            if whole[0] == 'subprocess' and _is(keywords.get('shell'), True):
                found.append(f'{node.lineno}: a shell')
    return found


def _is(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def test_no_module_runs_what_it_reads() -> None:
    found = {str(path): faults_of(path.read_text(encoding='utf-8')) for path in SOURCES}
    assert not {path: faults for path, faults in found.items() if faults}


@pytest.mark.parametrize(
    'line',
    [
        'eval("1")',
        'import pickle',
        'from pickle import loads',
        'torch.load(path)',
        'torch.load(path, weights_only=False)',
        'yaml.load(text)',
        'exec(text)',
        'np.load(path)',
        'np.load(path, allow_pickle=True)',
        'os.system("ls")',
        'subprocess.run("ls", shell=True)',
    ],
)
def test_the_walk_finds_each_of_them(line: str) -> None:
    assert len(faults_of(line)) == 1
