"""The registry of section models: every field is explained, every default is written once."""

import inspect
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY
from pydantic import Field

from basicsr_distill.config import STAGE_ORDER, registry
from basicsr_distill.config.sections.base import NamedFile, Options, OutputFolder, Text, Threshold, Word, models_in
from basicsr_distill.config.sections.benchmark import BenchmarkFileOptions
from basicsr_distill.config.sections.codecs import CodecOptions
from basicsr_distill.config.sections.encoders import EncoderOptions
from basicsr_distill.config.sections.experiment import RootOptions
from basicsr_distill.config.sections.validation import TileOptions
from basicsr_distill.diffusion import codec
from basicsr_distill.features import encoders

TABLES = [registry.models(kind) for kind in get_args(registry.Kind)]
# What a component gets by the data or from its caller, and what its caller makes of a key.
GIVEN = {'num_labels', 'latent_dim', 'decode', 'img', 'img2'}
USED_BY_THE_MODEL = {'pixel_codec'}


def all_models() -> list[type[Options]]:
    found: list[type[Options]] = []
    waiting = [RootOptions, TileOptions, BenchmarkFileOptions, *(model for table in TABLES for model in table.values())]
    while waiting:
        model = waiting.pop()
        if model not in found:
            found.append(model)
            waiting += [inner for field in model.model_fields.values() for inner in models_in(field.annotation)]
    return found


@pytest.mark.parametrize('model', [pytest.param(model, id=model.__name__) for model in all_models()])
def test_every_field_is_described_and_every_section_too(model: type[Options]) -> None:
    assert model.__doc__ and model.__doc__ != Options.__doc__
    for name, field in model.model_fields.items():
        assert field.description and field.description.rstrip().endswith(('.', '...')), f'{model.__name__}.{name}'


def says_what(annotation: Any, metadata: list[Any]) -> bool:
    """Whether every text that an annotation allows is marked by what it means."""
    if any(isinstance(mark, Text) for mark in metadata):
        return True
    if get_origin(annotation) is Annotated:
        return says_what(get_args(annotation)[0], list(annotation.__metadata__))
    if get_origin(annotation) is Literal or models_in(annotation) == [annotation]:
        return True
    parts = get_args(annotation)[get_origin(annotation) is dict :]
    return all(says_what(part, []) for part in parts) if parts else annotation in (int, float, bool, type(None))


def unmarked(model: type[Options]) -> list[str]:
    return [name for name, field in model.model_fields.items() if not says_what(field.annotation, field.metadata)]


@pytest.mark.parametrize('model', [pytest.param(model, id=model.__name__) for model in all_models()])
def test_every_text_says_whether_it_is_a_file_that_is_read(model: type[Options]) -> None:
    assert unmarked(model) == [], 'use Word, NamedFile, Source, Pretrained, DataFolder, OutputFolder or FreeSection'
    for name, field in model.model_fields.items():
        if Text('word') in field.metadata or Word in get_args(field.annotation):
            assert not str(field.description).startswith(('File', 'Folder of', 'Folder that', 'CSV', 'Hub')), name


def test_a_new_key_that_does_not_say_so_is_found() -> None:
    class Toy(Options):
        """A toy."""

        good: NamedFile | None = Field(None, description='.')
        better: dict[str, OutputFolder] = Field({}, description='.')
        best: Annotated[Threshold | Literal['a'] | list[Word], Field(description='.')] = 1.0
        weights: str = Field('', description='.')
        more: list[str] | None = Field(None, description='.')
        section: dict[str, Any] = Field({}, description='.')
        mixed: NamedFile | str = Field('', description='.')
        anything: Any = Field(None, description='.')

    assert unmarked(Toy) == ['weights', 'more', 'section', 'mixed', 'anything']


def components() -> Iterator[Any]:
    hosts: dict[registry.Kind, Any] = {'network': ARCH_REGISTRY, 'loss': LOSS_REGISTRY, 'metric': METRIC_REGISTRY}
    for kind, host in hosts.items():
        yield from (pytest.param(model, host.get(name), id=name) for name, model in registry.models(kind).items())


@pytest.mark.parametrize(('model', 'component'), components())
def test_a_component_takes_the_keys_of_its_model_and_has_no_default(
    model: type[Options], component: Callable[..., Any]
) -> None:
    parameters = inspect.signature(component).parameters
    keys = model.model_fields.keys() - USED_BY_THE_MODEL - {'type'}
    assert parameters.keys() - GIVEN == keys - GIVEN
    assert [name for name, parameter in parameters.items() if parameter.default is not parameter.empty] == []


@pytest.mark.parametrize(('kind', 'host'), [('dataset', DATASET_REGISTRY), ('train', MODEL_REGISTRY)])
def test_what_binds_its_own_section_takes_the_section_alone(kind: registry.Kind, host: Any) -> None:
    for name in registry.models(kind):
        assert list(inspect.signature(host.get(name)).parameters) == ['opt']


def test_codecs_and_encoders_take_their_options_whole() -> None:
    for union, build in ((CodecOptions, codec.build_codec), (EncoderOptions, encoders.build_encoder)):
        annotation = inspect.signature(build).parameters['options'].annotation
        assert set(models_in(annotation)) == set(models_in(union))


def test_the_stages_are_in_the_order_of_the_method() -> None:
    assert [stage for stage in STAGE_ORDER if stage != 'finetune'] == list(registry.models('stage'))
