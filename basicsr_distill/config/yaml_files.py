"""Option files: safe YAML in, plain data out.

BasicSR reads its option files with an unsafe loader; here nothing but plain data comes out of a file, and a file cannot
be a trap for the reader either: its size, its depth and what its aliases expand to are limited.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from basicsr_distill.config.paths import expand_paths
from basicsr_distill.errors import InputError

MAX_FILE_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NODES = 100_000


class _Loader(getattr(yaml, 'CSafeLoader', yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's safe loader with duplicate keys refused and 1e-4 read as a float."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:  # as written: a merged key (<<) may be given again, which replaces it
            if key_node.tag == 'tag:yaml.org,2002:merge':
                continue
            key = self.construct_object(key_node)
            if not isinstance(key, (str, int)):
                raise yaml.constructor.ConstructorError(None, None, f'key {key!r} is not a word', key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f'key {key!r} occurs twice', key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


# YAML 1.1 as PyYAML reads it takes 1e-4 for a string; every learning rate is written so.
_Loader.add_implicit_resolver(
    'tag:yaml.org,2002:float',
    re.compile(r'^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$'),
    list('-+.0123456789'),
)


def _check_depth(text: str) -> None:
    """Refuse deep nesting from the flat stream of events: composing nodes recurses, in C without a guard."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise yaml.constructor.ConstructorError(None, None, 'it is nested too deeply', event.start_mark)  # type: ignore[arg-type]


def _check_expansion(node: yaml.Node | None, sizes: dict[int, int], depth: int = 0) -> int:
    """Nodes that ``node`` stands for once its aliases are written out; refuses bombs before anything is built."""
    if node is None:
        return 0
    if depth > MAX_DEPTH:
        raise yaml.constructor.ConstructorError(None, None, 'it is nested too deeply', node.start_mark)
    if id(node) not in sizes:
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        sizes[id(node)] = 1 + sum(_check_expansion(child, sizes, depth + 1) for child in children)
    if sizes[id(node)] > MAX_NODES:
        raise yaml.constructor.ConstructorError(None, None, 'its aliases expand to too much', node.start_mark)
    return sizes[id(node)]


def parse_yaml(text: str, origin: str) -> Any:
    """Plain data from YAML text.

    Raises:
        InputError: malformed, tagged, nested too deeply, too large, or with a key twice; names ``origin`` and line.
    """
    try:
        _check_depth(text)
    except yaml.YAMLError as error:
        raise _explained(error, origin, text) from None
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        _check_expansion(node, {})
        return None if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        raise _explained(error, origin, text) from None
    except ValueError as error:
        raise InputError(f'{origin}: {error}.') from None
    finally:
        loader.dispose()


def _explained(error: yaml.YAMLError, origin: str, text: str) -> InputError:
    mark = getattr(error, 'problem_mark', None)
    line = f', line {mark.line + 1}' if mark else ''
    problem = getattr(error, 'problem', None) or str(error).splitlines()[0]
    if 'could not determine a constructor' in problem:
        problem = f'{problem.split(" for ")[-1]} is not allowed, only plain values are'
    if (
        mark
        and text.splitlines()[mark.line : mark.line + 1]
        and text.splitlines()[mark.line][mark.column :].startswith('\t')
    ):
        problem = 'a tab stands where spaces belong; indent with spaces'
    return InputError(f'{origin}{line}: {problem}.')


def load_option_file(path: Path) -> dict[str, Any]:
    """Read an option file.

    Raises:
        InputError: unreadable, not UTF-8, over 1 MiB, not a mapping, or refused by :func:`parse_yaml`.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f'{path}: larger than 1 MiB; this is not an option file.')
        text = path.read_text(encoding='utf-8')
    except OSError as error:
        raise InputError(f'{path}: cannot be read ({error.strerror}); give the path of an option file.') from error
    except UnicodeDecodeError:
        raise InputError(f'{path}: not a text file in UTF-8.') from None
    options = parse_yaml(text, str(path))
    if not isinstance(options, dict):
        raise InputError(f'{path}: holds no options; it must be a mapping of keys to values.')
    return options


def read_option_file(path: Path, force_yml: Sequence[str] = ()) -> dict[str, Any]:
    """Load an option file and apply ``--force_yml`` entries (``train:ema_decay=0.999``) to it.

    Raises:
        InputError: the file or an entry is malformed, or an entry's parent section does not exist.
    """
    options = load_option_file(path)
    for entry in force_yml:
        keys, separator, text = entry.partition('=')
        *parents, leaf = keys.strip().split(':')
        if not separator or not leaf:
            raise InputError(f'--force_yml {entry}: write KEY=VALUE, for example train:ema_decay=0.999.')
        section = options
        for parent in parents:
            if not isinstance(section.get(parent), dict):
                raise InputError(f'--force_yml {entry}: {path} has no section {parent!r}.')
            section = section[parent]
        # BasicSR reads the word none as null, YAML does not.
        section[leaf] = None if text.strip().lower() == 'none' else parse_yaml(text, f'--force_yml {entry}')
    expanded: dict[str, Any] = expand_paths(options, str(path))
    return expanded
