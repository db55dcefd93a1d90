"""What all section models share (frozen, unknown keys refused, every field described), and binding a section to one."""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from basicsr_distill.errors import InputError

DEFAULT_SCALE = 4

# What pydantic puts into a place for the branches of a union.
_UNION_BRANCH = re.compile(r'.*\[.*|(constrained-)?(int|float|str|bool)')


def _no_truth_value(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f'{"true" if value else "false"} is not a number')
    return value


def _threshold(value: Any) -> float | str:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float('inf'):
        return float(value)
    quantile = re.fullmatch(r'q(\d+(?:\.\d+)?)', value) if isinstance(value, str) else None
    if value == 'median' or (quantile and 0 < float(quantile[1]) <= 100):
        return str(value)
    raise ValueError(f'{value!r} is neither decibels, nor median, nor a quantile such as q40')


PositiveInt = Annotated[int, Field(ge=1), BeforeValidator(_no_truth_value)]
Count = Annotated[int, Field(ge=0), BeforeValidator(_no_truth_value)]
NumberRange = Annotated[list[float], Field(min_length=2, max_length=2)]
Fraction = Annotated[float, Field(ge=0, le=1)]
# YAML 1.1 reads a bare `off` as false.
OFF = BeforeValidator(lambda value: 'off' if value is False else value)
PsnrMetric = Literal['matlab_rgb', 'matlab_y', 'cv2_grey']
Precision = Literal['fp32', 'bf16', 'fp16']


@dataclass(frozen=True)
class Text:
    """The meaning of a text. Every field with one says which, for a file that is read is an input of its stage.

    kind: ``word`` is no path.  ``file`` is read and has to be there.  ``source`` is a file where there is one, else a
    tag.  ``pretrained`` is a file or a folder where there is one, else a hub id.  ``data`` is a folder of images or of
    a stage, or a file in one, and has a fingerprint of its own.  ``output`` is written.  ``section`` is a mapping
    without a model, in which any text may lead to a file.
    prefix: the beginning of a text that is a path.  folder: the field that names a folder inside it.
    """

    kind: Literal['word', 'file', 'source', 'pretrained', 'data', 'output', 'section']
    prefix: str = ''
    folder: str = ''


Word = Annotated[str, Text('word')]
NamedFile = Annotated[str, Text('file')]
Source = Annotated[str, Text('source')]
Pretrained = Annotated[str, Text('pretrained', folder='subfolder')]
DataFolder = Annotated[str, Text('data')]
OutputFolder = Annotated[str, Text('output')]
FreeSection = Annotated[dict[str, Any], Text('section')]
# Decibels, median, or qNN: NN per cent of the scores lie below it.
Threshold = Annotated[float | Word, BeforeValidator(_threshold)]


class Options(BaseModel):
    """Base of every section: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra='forbid', frozen=True, protected_namespaces=())

    @property
    def idle(self) -> frozenset[str]:
        """The fields that have no effect beside the values of others."""
        return frozenset()

    def to_plain(self) -> dict[str, Any]:
        """Return the section as BasicSR's components take it: plain values, with every default."""
        return self.model_dump()


class HostOptions(Options, strict=True):
    """Base of the sections that BasicSR's own components read; values are what YAML says, without conversion."""

    def to_plain(self) -> dict[str, Any]:
        """Return what was written: BasicSR has its defaults itself, and asks of some keys whether they are there."""
        return self.model_dump(exclude_unset=True)


Section = TypeVar('Section', bound=Options)


def bind(section: type[Section], values: Any, where: str) -> Section:
    """Check ``values`` against a section's model.

    Args:
        section: the model.
        values: the section as it is written.
        where: how messages name the place, such as ``options/distill/demo.yml: extract``.

    Raises:
        InputError: for the first thing that is wrong; an unknown key is answered with the nearest known one.
    """
    if not isinstance(values, dict):
        raise InputError(f'{where}: must be a mapping of keys to values.')
    try:
        return section.model_validate(values)
    except ValidationError as error:
        # An unknown key comes first: a misspelt one often causes the other complaints.
        first = min(error.errors(), key=lambda item: item['type'] != 'extra_forbidden')
        parts = [str(part) for part in first['loc']]
        unknown = parts.pop() if first['type'] == 'extra_forbidden' else None  # as the user wrote it, be it `int`
        place = [part for part in parts if not _UNION_BRANCH.fullmatch(part)]
        if unknown is not None:
            known = keys_at(section, place)
            raise InputError(
                f'{where}: unknown key {".".join([*place, unknown])!r}; did you mean {nearest_name(unknown, known)!r}?'
            ) from None
        keys = ''.join(f'{part}.' for part in place).removesuffix('.')
        raise InputError(f'{where}: {keys}{": " if keys else ""}{_explain(first)}.') from None


def _explain(error: Any) -> str:
    """Say what is wrong with a value, as one of pydantic's errors has it."""
    if error['type'] in ('dict_type', 'model_type', 'model_attributes_type'):
        return 'must be a mapping of keys to values'
    if error['type'] == 'value_error':
        return str(error['msg']).removeprefix('Value error, ').replace('\n', ' ')
    is_plain = isinstance(error['input'], (str, int, float)) and error['type'] != 'missing'
    return f'{error["msg"][0].lower()}{error["msg"][1:]}' + (f', not {error["input"]!r:.80}' if is_plain else '')


def nearest_name(name: str, known: Iterable[str]) -> str:
    """The known name most like a wrong one, whatever its case.

    >>> nearest_name('Treshold', ['stride', 'threshold'])
    'threshold'
    """
    folded = {candidate.lower(): candidate for candidate in sorted(known)}
    return folded[difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0)[0]]


def keys_at(section: type[Options], place: list[str]) -> list[str]:
    """Known keys of the model that ``place`` leads to (unions are walked through by their tag)."""
    models: list[type[Options]] = [section]
    for part in place:
        inner = [
            model
            for owner in models
            for name, field in owner.model_fields.items()
            if name == part
            for model in models_in(field.annotation)
        ]
        tagged = [model for model in models if part in type_names(model)]
        models = inner or tagged or models
    return sorted({name for model in models for name in model.model_fields})


def models_in(annotation: Any) -> list[type[Options]]:
    """Section models that an annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, Options):
        return [annotation]
    return [model for part in getattr(annotation, '__args__', ()) for model in models_in(part)]


def type_names(model: type[Options]) -> tuple[str, ...]:
    """Values of ``type`` that a section model answers to."""
    kind = model.model_fields.get('type')
    return getattr(kind.annotation, '__args__', ()) if kind else ()
