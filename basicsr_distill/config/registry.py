"""The one registry of section models: kind and ``type`` of a section in an option file -> the model of its keys.

A model registers itself where it is defined, and every module of ``config/sections`` is looked into. A component with a
model takes its keys without defaults of its own; they are written once, in the model. Components without one (networks
of SR, losses and metrics of BasicSR) are checked against their signatures, see ``training.keys``; models and data sets
without one, which someone else has registered, read what they like.
"""

import importlib
import pkgutil
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal, TypeVar

from pydantic import Field, create_model

from basicsr_distill.config import STAGE_ORDER, sections
from basicsr_distill.config.sections.base import Options, bind, type_names

# ``stage`` is a section of a recipe beside BasicSR's root keys. By ``model_type`` there are ``train``, the section of
# that name, and ``root``, the keys beside all sections where a model reads more than others. ``term`` is a loss of the
# fine-tuning by its key in ``train``, ``NAME_opt``; those of the paper are fields of MinimaxDiTTrainOptions.
Kind = Literal['stage', 'dataset', 'network', 'loss', 'metric', 'term', 'train', 'root']
Models = Mapping[str, type[Options]]
_Model = TypeVar('_Model', bound=type[Options])

_models: dict[Kind, dict[str, type[Options]]] = defaultdict(dict)


def register(kind: Kind, *names: str) -> Callable[[_Model], _Model]:
    """Register a section model for sections of a kind.

    Args:
        kind: where such sections stand.
        names: those that lead to the model; the values of its field ``type`` when absent.
    """

    def add(model: _Model) -> _Model:
        for name in names or type_names(model):
            assert name not in _models[kind], f'{kind} {name} has a model'
            _models[kind][name] = model
        return model

    return add


@cache
def models(kind: Kind) -> Models:
    """Section models of a kind by the names that lead to them; stages in the order of the method."""
    for module in sorted(found.name for found in pkgutil.iter_modules(sections.__path__)):
        importlib.import_module(f'{sections.__name__}.{module}')
    known = _models[kind]
    if kind == 'train':
        known = {name: _with_terms(model) for name, model in known.items()}
    return {name: known[name] for name in (STAGE_ORDER if kind == 'stage' else sorted(known)) if name in known}


def _with_terms(model: type[Options]) -> type[Options]:
    """Return the model with a field for every term that was registered, where it takes terms."""
    terms = models('term') if getattr(model, 'takes_terms', False) else {}
    fields: Any = {key: (term | None, Field(None, description=term.__doc__)) for key, term in terms.items()}
    return create_model(model.__name__, __base__=model, __doc__=model.__doc__, **fields) if fields else model


def bind_dataset(opt: Mapping[str, Any]) -> Any:
    """Options of a dataset of ours from the section that BasicSR builds it with, which has ``phase`` and ``scale`` too.

    Raises:
        InputError: a key is unknown, missing or wrong.
    """
    own = {key: value for key, value in opt.items() if key not in ('phase', 'scale')}
    return bind(models('dataset')[opt['type']], own, f'datasets.{opt.get("name")}')
