"""Training the denoiser through BasicSR's own layout, in this process."""

import shutil
from pathlib import Path

import original_dit_source
import pytest
import torch
from latent_recipe import make_stages, recipe, write_recipe

from basicsr_distill.config.experiment import to_experiment
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.data.latent_patch_dataset import LatentPatchDataset
from basicsr_distill.diffusion.ema import ParameterAverage
from basicsr_distill.diffusion.process import add_noise, linear_alpha_bar, simple_loss
from basicsr_distill.errors import InputError
from basicsr_distill.models.minimax_dit_model import MinimaxDiTModel
from basicsr_distill.training import train as train_loop


@pytest.fixture
def root(tmp_path, monkeypatch):
    make_stages(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(root, options, auto_resume=False):
    path = write_recipe(root / f'{options["name"]}.yml', options)
    recipe = Recipe.load(path)
    train_loop.train(to_experiment(recipe, is_train=True, root=Path.cwd(), auto_resume=auto_resume))
    return Path('experiments') / options['name']


def experiment(root, options, auto_resume=False):
    path = write_recipe(root / f'{options["name"]}.yml', options)
    opt = to_experiment(Recipe.load(path), is_train=True, root=Path.cwd(), auto_resume=auto_resume).opt
    return {**opt, 'rank': 0, 'world_size': 1, 'dist': False}


def checkpoint(folder, iteration='latest'):
    return torch.load(folder / 'models' / f'net_g_{iteration}.pth', weights_only=True)


def model_with_batch(root, options):
    """A model on prepared latents, fed one batch."""
    opt = experiment(root, options)
    dataset = LatentPatchDataset(opt['datasets']['train'])
    dataset.prepare()
    model = MinimaxDiTModel(opt)
    torch.manual_seed(0)
    batch = torch.utils.data.default_collate([dataset[index] for index in range(4)])
    model.feed_data(batch)
    return model, batch


def assert_same(first, second):
    assert first.keys() == second.keys()
    for key in first:
        assert torch.equal(first[key], second[key]), key


def test_training_lowers_the_noise_error_and_writes_basicsrs_layout(root):
    options = recipe(root, total_iter=60)
    options['logger']['save_checkpoint_freq'] = 100
    folder = train(root, options)
    saved = checkpoint(folder)
    assert set(saved) == {'params', 'params_ema'}
    model, batch = model_with_batch(root, recipe(root, 'fresh'))
    errors = []
    for state in (None, saved['params']):
        if state is not None:
            model.net.load_trained_state(state, 'x')
        t = torch.full((4,), 300)
        x_t = add_noise(batch['latent'], batch['noise'], linear_alpha_bar()[t])
        with torch.no_grad():
            output = model.net(x_t, t, batch['label'])
        errors.append(float((output[:, :16] - batch['noise']).square().mean()))
    assert errors[1] < 0.9 * errors[0]


def test_interrupted_training_ends_with_the_same_files(root):
    whole = train(root, recipe(root, 'whole'))
    half = train(root, recipe(root, 'half'))
    # As after kill -9 behind iteration 5: the newest whole checkpoint is that of iteration 3, one more is truncated.
    for name in ('models/net_g_8.pth', 'models/net_g_latest.pth', 'training_states/8.state'):
        (half / name).unlink()
    state = half / 'training_states' / '6.state'
    state.write_bytes(state.read_bytes()[:1000])
    train(root, recipe(root, 'half'), auto_resume=True)
    for key in ('params', 'params_ema'):
        assert_same(checkpoint(whole)[key], checkpoint(half)[key])
    states = [torch.load(folder / 'training_states' / '8.state', weights_only=True) for folder in (whole, half)]
    assert_same(*(state['model_state']['losses'] for state in states))
    assert states[0]['model_state']['average_updates'] == states[1]['model_state']['average_updates'] == 8


def test_memories_fill_and_travel_with_the_training_state(root):
    folder = train(root, recipe(root))
    losses = torch.load(folder / 'training_states' / '8.state', weights_only=True)['model_state']['losses']
    assert int(losses['representativeness.memory.pushed'].sum()) == 8 * 4
    assert losses['diversity.memory.directions'].norm(dim=1).round(decimals=4).eq(1).all()


def test_all_terms_are_logged_and_sum_to_the_loss_that_is_minimised(root):
    model, batch = model_with_batch(root, recipe(root))
    for iteration in (1, 2):
        model.optimize_parameters(iteration)
    terms = {key for key in model.log_dict if key.startswith('l_')}
    assert terms == {'l_simple', 'l_vlb', 'l_representativeness', 'l_diversity', 'l_high_frequency'}
    assert {key for key in model.log_dict if key.startswith('g_')} == {key.replace('l_', 'g_', 1) for key in terms}
    t = (batch['time'] * 1000).long()
    assert model.log_dict['l_representativeness'] <= 0.002 * 2 and model.log_dict['l_diversity'] <= 0.008
    with torch.no_grad():
        got, output = model._terms(batch)
    assert float(got['l_simple']) == pytest.approx(
        float(simple_loss(output[:, :16], batch['noise'], linear_alpha_bar()[t])), rel=1e-6)


def test_switched_off_terms_leave_no_trace(root):
    model, _ = model_with_batch(root, recipe(root, representativeness_opt=None, vlb_weight=0, diversity_opt={
        'type': 'DiversityLoss', 'loss_weight': 0}, high_frequency_opt={'type': 'HighFrequencyLoss', 'mode': 'off'}))
    model.optimize_parameters(1)
    assert set(model.log_dict) == {'l_simple'} and len(model.losses) == 0


def test_max_timestep_bounds_the_noise(root):
    model, batch = model_with_batch(root, recipe(root, max_timestep=50))
    seen = []
    model.net.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
    model.optimize_parameters(1)
    assert torch.equal(seen[0], (batch['time'] * 50).long())


def test_accumulation_gives_the_gradient_of_the_whole_batch(root):
    plain = {'representativeness_opt': None, 'diversity_opt': None}
    gradients = []
    for accumulation in (1, 3):
        torch.manual_seed(1)
        model, batch = model_with_batch(root, recipe(root, accumulation=accumulation, **plain))
        # Equal parts are averaged with equal weights, so the parts must be equal here.
        model.feed_data({key: value[:3] for key, value in batch.items()})
        model.optimize_parameters(1)
        gradients.append([p.grad.clone() for p in model.trained])
    for whole, parts in zip(*gradients):
        torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize('precision', ['bf16', 'fp16'])
def test_lower_precision_follows_full_precision(root, precision):
    values = []
    for kind in ('fp32', precision):
        torch.manual_seed(1)
        model, _ = model_with_batch(root, recipe(root, precision=kind))
        for iteration in (1, 2, 3):
            model.optimize_parameters(iteration)
        values.append(model.log_dict['l_simple'])
        assert all(p.dtype == torch.float32 for p in model.trained)
    assert values[1] == pytest.approx(values[0], rel=0.05)


def test_a_loss_that_is_not_finite_is_named_and_the_checkpoint_kept(root):
    model, batch = model_with_batch(root, recipe(root))
    model.optimize_parameters(1)
    before = {name: value.clone() for name, value in model.net.trained_state().items()}
    batch['latent'][0, 0, 0, 0] = float('nan')
    model.feed_data(batch)
    with pytest.raises(FloatingPointError, match=r'Iteration 2: .*l_simple'):
        model.optimize_parameters(2)
    assert_same(before, model.net.trained_state())


@pytest.mark.parametrize('warmup', [False, True])
def test_without_averaging_the_average_is_the_newest_weights(root, warmup):
    saved = checkpoint(train(root, recipe(root, ema_decay=0, ema_warmup=warmup)))
    assert_same(saved['params_ema'], saved['params'])


def test_out_of_memory_halves_the_parts_once_and_then_stops(root):
    limit = 2

    def refuse_large(module, inputs):
        if len(inputs[0]) > limit:
            raise torch.OutOfMemoryError('CUDA out of memory')

    model, _ = model_with_batch(root, recipe(root))
    model.net.register_forward_pre_hook(refuse_large)
    model.optimize_parameters(1)
    assert model.num_parts == 2 and model.log_dict['l_simple'] > 0
    limit = 1
    with pytest.raises(InputError, match=r'train\.accumulation: out of GPU memory with 2 part'):
        model.optimize_parameters(2)


def test_average_warms_up():
    average = ParameterAverage({'w': torch.zeros(1)})
    value = 0.0
    for update in range(30):
        average.update({'w': torch.tensor([float(update)])}, 0.5, warmup=True)
        decay = min(0.5, (1 + update) / (10 + update))
        value = decay * value + (1 - decay) * update
    assert float(average.state_dict()['w']) == pytest.approx(value, rel=1e-6)
    cold = ParameterAverage({'w': torch.zeros(1)})
    cold.update({'w': torch.ones(1)}, 0.9, warmup=False)
    assert float(cold.state_dict()['w']) == pytest.approx(0.1)


def test_labels_and_shapes_that_do_not_fit_are_refused_before_training(root):
    options = recipe(root)
    options['network_g']['num_labels'] = 1
    with pytest.raises(InputError, match='set num_labels: 2'):
        train(root, options)
    options = recipe(root)
    options['network_g']['from_scratch']['sample_size'] = 8
    with pytest.raises(InputError, match=r'takes latents of shape \[16, 8, 8\]'):
        train(root, options)


def test_validation_measures_fixed_noise_and_leaves_training_as_it_was(root):
    options = recipe(root, 'with_val')
    options['datasets']['val'] = {**options['datasets']['train'], 'name': 'held_back', 'use_hflip': False}
    options['val'] = {'val_freq': 2, 'save_img': True}
    folder = train(root, options)
    plain = train(root, recipe(root, 'without'))
    assert_same(checkpoint(folder)['params'], checkpoint(plain)['params'])
    grids = sorted(path.name for path in (folder / 'visualization').iterdir())
    assert grids == ['held_back_2.png', 'held_back_4.png', 'held_back_6.png', 'held_back_8.png']
    log = next(folder.glob('train_*.log')).read_text()
    assert 'Validation held_back: eps_mse ' in log and 'sample_diversity' in log and 'sample_coverage' in log


@pytest.fixture
def hub_folder(tmp_path):
    return original_dit_source.write_pipeline(tmp_path / 'hub')


def difffit_recipe(root, hub_folder, **network):
    options = recipe(root, 'difffit')
    options['datasets']['train']['codec'] = {'type': 'block_pca', 'components': 4, 'block_px': 4}
    options['network_g'] = {'type': 'MinimaxDiT', 'num_labels': 2, 'pretrained': str(hub_folder),
                            'local_files_only': True, 'tuning': 'difffit', **network}
    return options


def test_a_local_hub_folder_is_fine_tuned_with_difffit(root, hub_folder):
    options = difffit_recipe(root, hub_folder)
    model, _ = model_with_batch(root, options)
    frozen = {name: p.clone() for name, p in model.net.named_parameters() if not p.requires_grad}
    for iteration in (1, 2):
        model.optimize_parameters(iteration)
    assert frozen and all(torch.equal(p, frozen[name]) for name, p in model.net.named_parameters() if name in frozen)
    shutil.rmtree('experiments', ignore_errors=True)

    folder = train(root, options)
    saved = checkpoint(folder)
    total = sum(p.numel() for p in model.net.parameters())
    for key in ('params', 'params_ema'):
        assert set(saved[key]) == set(model.net.trained_state())
        assert sum(value.numel() for value in saved[key].values()) < 0.05 * total
    assert (folder / 'models' / 'net_g_latest.pth').stat().st_size < 0.15 * 4 * total

    resumed = {**options, 'train': {**options['train'], 'total_iter': 9}}
    train(root, resumed, auto_resume=True)
    assert checkpoint(folder, 9)['params'].keys() == saved['params'].keys()


def test_a_checkpoint_of_another_network_is_refused(root, hub_folder):
    folder = train(root, recipe(root))
    options = difffit_recipe(root, hub_folder)
    options['path'] = {'pretrain_network_g': str(folder / 'models' / 'net_g_latest.pth')}
    with pytest.raises(InputError, match=r'net_g_latest\.pth: .* network_g must be as it was'):
        train(root, options)
