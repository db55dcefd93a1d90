"""The files that options name: found by what the section models say of every text, so that no key is forgotten."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from basicsr_distill.config.recipe import Recipe, Section
from basicsr_distill.config.sections.base import Options, Text
from basicsr_distill.errors import InputError

# A text of an option file: its key, what it means, itself, and the section that it stands in.
_Found = tuple[str, Text, str, Any]


def named_files(section: Section, where: str) -> dict[str, Path]:
    """Files and folders that a section and those in it name to be read, by their key below it, such as ``scores.path``.

    Hub ids and tags lead to nothing here and are left out.

    Args:
        section: a section's model, or the mapping of a stock component, in which models may stand.
        where: name of the section, for messages.

    Raises:
        InputError: a key that can name nothing but a file names none.
    """
    files = {}
    for key, text, value, owner in _texts(section):
        path = value.removeprefix(text.prefix)
        if text.kind == 'file' and not os.path.isfile(path):
            raise InputError(f'{where}.{key}: {value}: no such file; correct the path.')
        inner = os.path.join(path, getattr(owner, text.folder, None) or '')
        path = inner if os.path.isdir(inner) else path
        if os.path.isfile(path) or (os.path.isdir(path) and _may_be_folder(text, value)):
            files[key] = Path(path)
    return files


def experiment_files(recipe: Recipe) -> dict[str, Path]:
    """Files that the networks, the train section and the section ``path`` of an option file name, by their key.

    Those of its data sets are left out: they belong to whoever reads the data.

    Raises:
        InputError: one is not there.
    """
    sections = recipe.experiment
    if sections is None:
        return {}
    named = {**sections.networks, 'train': sections.train or {}, 'path': sections.path}
    return {
        f'{name}.{key}': path
        for name, section in named.items()
        for key, path in named_files(section, f'{recipe.path}: {name}').items()
    }


def _may_be_folder(text: Text, value: str) -> bool:
    """A bare word of a free section that is also the name of a folder is no path."""
    return text.kind == 'pretrained' or (text.kind == 'section' and '/' in value)


def _texts(section: Section, *place: str) -> Iterator[_Found]:
    """All texts of a section that may lead to a file; ``place`` is the keys that the section stands under."""
    if isinstance(section, Mapping):
        yield from _texts_of(section, place, [Text('section')], section)
        return
    for name, field in type(section).model_fields.items():
        if name not in section.idle:
            marks = [*(mark for mark in field.metadata if isinstance(mark, Text)), *_marks_in(field.annotation)]
            yield from _texts_of(getattr(section, name), (*place, name), marks, section)


def _texts_of(value: Any, place: tuple[str, ...], marks: Sequence[Text], owner: Section) -> Iterator[_Found]:
    """The texts in a value of a field that is marked so."""
    free = [mark for mark in marks if mark.kind == 'section']
    if isinstance(value, Options):
        yield from _texts(value, *place)
    elif isinstance(value, Mapping):
        for name, entry in value.items():
            # The type of a component is a word, whatever files have its name.
            if name != 'type':
                yield from _texts_of(entry, (*place, str(name)), free or marks, owner)
    elif isinstance(value, (list, tuple)):
        for number, entry in enumerate(value):
            yield from _texts_of(entry, (*place, str(number)), marks, owner)
    elif isinstance(value, str):
        own = [mark for mark in marks if mark not in free] or free
        yield from (
            ('.'.join(place), mark, value, owner)
            for mark in own
            if mark.kind not in ('word', 'data', 'output') and value.startswith(mark.prefix)
        )


def _marks_in(annotation: Any) -> Iterator[Text]:
    """What an annotation says of its texts; sections that it mentions speak for themselves."""
    yield from (mark for mark in getattr(annotation, '__metadata__', ()) if isinstance(mark, Text))
    for part in get_args(annotation):
        yield from _marks_in(part)
