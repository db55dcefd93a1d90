"""A loss that someone adds to the fine-tuning by registering it and its section."""

from pathlib import Path
from typing import Literal

import pytest
import torch
from basicsr.utils.registry import LOSS_REGISTRY
from latent_recipe import make_stages, recipe, write_recipe
from pydantic import Field

from basicsr_distill.config import registry
from basicsr_distill.config.experiment import to_experiment
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.config.sections.base import Options
from basicsr_distill.data.latent_patch_dataset import LatentPatchDataset
from basicsr_distill.errors import InputError
from basicsr_distill.models.minimax_dit_model import MinimaxDiTModel


class ToyTermOptions(Options):
    """A toy."""

    type: Literal['ToyTerm'] = Field('ToyTerm', description='Toy.')
    loss_weight: float = Field(1.0, description='Factor.')


class ToyTerm(torch.nn.Module):
    """The largest square of x0_pred - x0 in the batch, which is no mean over the samples."""

    needs_whole_batch = True

    def __init__(self, loss_weight):
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, prediction, batch):
        return self.loss_weight * (prediction.x0_pred - batch.x0).square().max()


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setitem(LOSS_REGISTRY._obj_map, 'ToyTerm', ToyTerm)
    registry.models('term')
    monkeypatch.setitem(registry._models['term'], 'toy_opt', ToyTermOptions)
    registry.models.cache_clear()
    make_stages(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    monkeypatch.undo()
    registry.models.cache_clear()


def model_of(root, toy, **train):
    path = write_recipe(root / 'toy.yml', recipe(root, toy_opt=toy, **train))
    opt = {**to_experiment(Recipe.load(path), is_train=True, root=root).opt, 'rank': 0, 'world_size': 1, 'dist': False}
    dataset = LatentPatchDataset(opt['datasets']['train'])
    dataset.prepare()
    torch.manual_seed(1)
    model = MinimaxDiTModel(opt)
    with torch.no_grad():
        for parameter in model.trained:
            parameter += 0.02 * torch.randn(parameter.shape)
    torch.manual_seed(5)
    model.feed_data(torch.utils.data.default_collate([dataset[number] for number in range(5)]))
    return model


def test_it_is_added_to_the_objective_under_its_key(root):
    model = model_of(root, {'loss_weight': 0.5})
    part = model.objective.noise(model.batch)
    output = model.net(part.x_t, part.timesteps, part.labels, drop_mask=part.drop_mask)
    eps, a = output[:, : part.x0.shape[1]], part.alpha_bar_t.view(-1, 1, 1, 1)
    x0_pred = (part.x_t - (1 - a).sqrt() * eps) / a.sqrt()
    terms = model.gradient(model.batch, log_gradients=True)
    expected = 0.5 * (x0_pred - part.x0).square().max().item()
    assert terms['l_toy'].item() == pytest.approx(expected, rel=1e-5)
    assert float(terms['g_toy']) > 0 and list(model.losses)[-1] == 'toy'


def test_its_gradient_is_that_of_the_whole_batch_however_that_is_cut(root):
    gradients = []
    for accumulation in (1, 3):
        model = model_of(root, {}, accumulation=accumulation)
        model.gradient(model.batch, log_gradients=False)
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.trained]))
    assert float((gradients[0] - gradients[1]).norm() / gradients[0].norm()) < 1e-5


def test_its_keys_are_checked(root):
    for toy, message in (({'loss_wheight': 1}, "toy_opt.loss_wheight'; did you mean 'loss_weight'"), (3, 'toy_opt')):
        path = write_recipe(root / 'toy.yml', recipe(root, toy_opt=toy))
        with pytest.raises(InputError, match=message):
            Recipe.load(path)


def test_a_term_that_nobody_registered_is_refused(root):
    path = Path(write_recipe(root / 'toy.yml', recipe(root, tooy_opt={})))
    with pytest.raises(InputError, match="unknown key 'tooy_opt'; did you mean 'toy_opt'"):
        Recipe.load(path)
