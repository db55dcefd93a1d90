"""The JSON schema of option files: what an editor completes, explains and underlines.

Made from the section models, so that it cannot say anything else. A section whose type has no model here (a network of
SR, a loss of BasicSR) may hold any key: those are checked when a command reads the file. The schema of recipes leaves
BasicSR's own models and data sets out.
"""

import json
from typing import Any, get_args

from pydantic.json_schema import models_json_schema

from basicsr_distill.config import registry
from basicsr_distill.config.derived import DERIVED_KEYS
from basicsr_distill.config.sections.base import HostOptions, Options
from basicsr_distill.config.sections.benchmark import BenchmarkFileOptions
from basicsr_distill.config.sections.experiment import RootOptions, ValidationOptions
from basicsr_distill.config.sections.validation import TileOptions

_DIALECT = 'http://json-schema.org/draft-07/schema#'
_REFERENCE = '#/definitions/{model}'
# What each of SCHEMA_KINDS is.
_DESCRIPTIONS = {
    'recipe': 'A recipe: the stages of a distillation and its training, for `basicsr distill` and `basicsr train`.',
    'experiment': 'An experiment of BasicSR, for `basicsr train` and `basicsr test`.',
    'benchmark': 'A comparison of sets, for `basicsr benchmark`.',
}


# Long: one description from top to bottom.
def schema(kind: str) -> dict[str, Any]:
    """The JSON schema of one kind of option file.

    Args:
        kind: one of SCHEMA_KINDS.

    >>> schema('recipe')['properties']['extract']['anyOf'][0]
    {'$ref': '#/definitions/ExtractOptions'}
    """
    if kind == 'benchmark':
        return _benchmark_schema()
    stages = registry.models('stage') if kind == 'recipe' else {}
    host: tuple[type[Options], ...] = (HostOptions, RootOptions) if kind == 'recipe' else ()
    tables: dict[str, registry.Models] = {
        name: {key: model for key, model in registry.models(name).items() if not issubclass(model, host)}
        for name in get_args(registry.Kind)
    }
    described: list[type[Options]] = [
        *stages.values(),
        *(model for name in tables if name != 'stage' for model in tables[name].values()),
        RootOptions,
        TileOptions,
    ]
    models = {model.__name__: model for model in described}
    wanted: list[tuple[Any, Any]] = [(models[name], 'validation') for name in sorted(models)]
    _, generated = models_json_schema(wanted, ref_template=_REFERENCE)
    definitions: dict[str, Any] = generated['$defs']
    datasets = {model.__name__: ('name',) for model in tables['dataset'].values()}
    for name in definitions:
        absent = (*DERIVED_KEYS.get(name, ()), *datasets.get(name, ()))
        if required := definitions[name].get('required'):
            definitions[name]['required'] = [key for key in required if key not in absent]
    root = definitions.pop(RootOptions.__name__)
    properties = root['properties']
    own_roots = {model.__name__: definitions.pop(model.__name__) for model in {*tables['root'].values()}}
    for name, model in stages.items():
        properties[name] = _or_null(_reference(model)) | {'description': model.__doc__}
    properties['datasets'] |= _or_null(
        {'type': 'object', 'additionalProperties': _or_null(_by_type(tables['dataset']))}
    )
    definitions[ValidationOptions.__name__]['properties'] |= {
        'metrics': _or_null({'type': 'object', 'additionalProperties': _or_null(_by_type(tables['metric']))}),
        'tile': _or_null(_reference(TileOptions)),
    }
    made = {
        '$schema': _DIALECT,
        'description': _DESCRIPTIONS[kind],
        'type': 'object',
        'properties': properties,
        # Other models read keys of their own at the root.
        'patternProperties': {'^network_': _or_null(_by_type(tables['network']))},
        'allOf': [
            {'if': _is('model_type', name), 'then': {'properties': {'train': _or_null(_reference(model))}}}
            for name, model in tables['train'].items()
        ]
        + [
            {
                'if': _is('model_type', name),
                'then': {
                    'properties': {
                        key: rule
                        for key, rule in own_roots[model.__name__]['properties'].items()
                        if key not in properties
                    }
                },
            }
            for name, model in tables['root'].items()
        ],
        'definitions': dict(sorted(definitions.items())),
    }
    return _untitled(made | ({'additionalProperties': False} if kind == 'recipe' else {}))


def _benchmark_schema() -> dict[str, Any]:
    """Rows hold keys of the stages; what is wrong with them is found when the file is read."""
    made = BenchmarkFileOptions.model_json_schema(ref_template=_REFERENCE)
    made['definitions'] = made.pop('$defs')
    return _untitled({'$schema': _DIALECT, **made, 'description': _DESCRIPTIONS['benchmark']})


def schema_text(kind: str) -> str:
    """Return the schema as it is printed and kept in ``schemas/``: a line for each root key and each definition."""
    lines = []
    for key, value in schema(kind).items():
        if key in ('properties', 'definitions'):
            parts = ',\n'.join(f'    {_line(name)}: {_line(rule)}' for name, rule in value.items())
            lines.append(f'  {_line(key)}: {{\n{parts}\n  }}')
        else:
            lines.append(f'  {_line(key)}: {_line(value)}')
    return '{\n' + ',\n'.join(lines) + '\n}\n'


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _untitled(rule: Any) -> Any:
    """Without pydantic's titles, which only repeat the keys."""
    if isinstance(rule, list):
        return [_untitled(part) for part in rule]
    if not isinstance(rule, dict):
        return rule
    return {key: _untitled(part) for key, part in rule.items() if key != 'title' or not isinstance(part, str)}


def _reference(model: type[Options]) -> dict[str, Any]:
    return {'$ref': _REFERENCE.format(model=model.__name__)}


def _or_null(rule: dict[str, Any]) -> dict[str, Any]:
    """Null switches a section off."""
    return {'anyOf': [rule, {'type': 'null'}]}


def _is(key: str, value: str) -> dict[str, Any]:
    return {'properties': {key: {'const': value}}, 'required': [key]}


def _by_type(models: registry.Models) -> dict[str, Any]:
    """A section that its ``type`` gives its keys, where that type has a model."""
    return {
        'type': 'object',
        'required': ['type'],
        'allOf': [{'if': _is('type', name), 'then': _reference(model)} for name, model in models.items()],
    }
