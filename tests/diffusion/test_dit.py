"""Both sources of published weights against the original network, and the exactness of DiffFit."""

import original_dit
import pytest
import torch
from diffusers import DiTTransformer2DModel
from latent_recipe import make_dit

from basicsr_distill.config.sections.dit import ScratchDiTOptions
from basicsr_distill.diffusion.difffit import attach_difffit, fold_difffit
from basicsr_distill.diffusion.dit import (
    convert_original,
    load_dit,
    scratch_dit,
    share_conditioner,
)
from basicsr_distill.errors import InputError

TIMESTEPS = torch.tensor([0, 250, 500, 999])
LABELS = torch.tensor([0, 3, 9, 10])


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    """One network as an original .pt file and as a diffusers pipeline folder."""
    folder = tmp_path_factory.mktemp('dit')
    state = original_dit.random_state()
    torch.save(state, folder / 'DiT.pt')
    config, converted = convert_original(state)
    # As the published conversion makes it: diffusers' defaults, whose frequencies and epsilon are not DiT's.
    hub = DiTTransformer2DModel(**{**config, 'norm_eps': 1e-5})
    hub.load_state_dict(converted)
    hub.save_pretrained(folder / 'pipeline' / 'transformer')
    return state, str(folder / 'DiT.pt'), str(folder / 'pipeline')


def output(network, x, **more):
    with torch.no_grad():
        return network(x, TIMESTEPS, LABELS, **more)


def test_both_sources_equal_the_original_network(sources):
    state, *paths = sources
    x = torch.randn(4, 4, 8, 8)
    expected = original_dit.forward(state, x, TIMESTEPS, LABELS)
    outputs = [
        output(make_dit(num_labels=10, pretrained=path, local_files_only=True, label_init='rows', tuning='full'), x)
        for path in paths
    ]
    assert expected.std() > 0.5
    for got in outputs:
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=1e-5)


def test_diffusers_alone_is_off_at_large_timesteps(sources):
    # If this fails, diffusers has corrected its DiT and share_conditioner has less to do.
    state, _, pipeline = sources
    x = torch.randn(4, 4, 8, 8)
    hub = DiTTransformer2DModel.from_pretrained(pipeline, subfolder='transformer').eval()
    with torch.no_grad():
        got = hub(x, timestep=TIMESTEPS, class_labels=LABELS).sample
    expected = original_dit.forward(state, x, TIMESTEPS, LABELS)
    error = (got - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
    assert error[2] > 5e-3 and error[3] > 5e-3


def test_labels_are_dropped_once_for_all_blocks(sources):
    network = make_dit(num_labels=10, pretrained=sources[1], label_init='rows', tuning='full')
    network.train()
    x = torch.randn(4, 4, 8, 8)
    mask = torch.tensor([True, False, True, False])
    dropped = output(network, x, drop_mask=mask)
    with torch.no_grad():
        expected = network(x, TIMESTEPS, torch.where(mask, 10, LABELS))
    assert torch.equal(dropped, expected)
    assert not torch.equal(dropped[0], output(network, x)[0])


@pytest.mark.parametrize('how', ['null_row', 'mean', 'rows'])
def test_label_rows_start_as_asked(sources, how):
    state, path, _ = sources
    network = make_dit(num_labels=3, pretrained=path, label_init=how)
    before = state['y_embedder.embedding_table.weight']
    table = network.conditioner.class_embedder.embedding_table.weight
    expected = {'null_row': before[10].expand(3, -1), 'mean': before[:10].mean(0).expand(3, -1), 'rows': before[:3]}[
        how
    ]
    torch.testing.assert_close(table[:3], expected)
    assert torch.equal(table[3:], before[3:])


def test_difffit_trains_exactly_its_parameters_of_xl_2():
    with torch.device('meta'):
        dit = scratch_dit(ScratchDiTOptions(size='XL', sample_size=32), 1000)
    conditioner = share_conditioner_on_meta(dit)
    attach_difffit(dit, conditioner)
    parameters = [p for module in (dit, conditioner) for p in module.parameters()]
    # Label table, biases, and 6 scales of 1152 channels in 14 of 28 blocks.
    biases = 1152 + 2 * 1152 + 28 * (3 + 1 + 4 + 1 + 6) * 1152 + 2 * 1152 + 4 * 8
    assert sum(p.numel() for p in parameters if p.requires_grad) == 1001 * 1152 + biases + 14 * 6 * 1152 == 1_739_552
    assert sum(p.numel() for p in parameters) == pytest.approx(675e6, rel=2e-3)


def share_conditioner_on_meta(dit):
    """share_conditioner compares weights, which meta tensors do not have."""
    first = dit.transformer_blocks[0].norm1.emb
    for block in dit.transformer_blocks:
        block.norm1.emb = torch.nn.Identity()
    return first


def train_a_little(network):
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-2, weight_decay=0)
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        x = torch.randn(4, 4, 8, 8, generator=generator)
        network(x, TIMESTEPS, LABELS).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_difffit_leaves_the_rest_bit_identical_and_folds_exactly(sources):
    network = make_dit(num_labels=10, pretrained=sources[1], label_init='rows', tuning='difffit')
    x = torch.randn(4, 4, 8, 8)
    plain = make_dit(num_labels=10, pretrained=sources[1], label_init='rows', tuning='full')
    assert torch.equal(output(network, x), output(plain, x))
    before = {name: p.clone() for name, p in network.named_parameters()}
    train_a_little(network)
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name

    expected = output(network, x)
    fold_difffit(network.dit)
    assert not any(name.endswith('gamma') for name, _ in network.named_parameters())
    torch.testing.assert_close(output(network, x), expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))


def test_only_the_trained_part_is_saved_and_it_reloads_exactly(sources):
    network = make_dit(num_labels=10, pretrained=sources[1])
    train_a_little(network)
    state = {name: value.clone() for name, value in network.trained_state().items()}
    assert sum(v.numel() for v in state.values()) < 0.1 * sum(p.numel() for p in network.parameters())
    fresh = make_dit(num_labels=10, pretrained=sources[1])
    fresh.load_trained_state(state, 'net_g.pth')
    x = torch.randn(4, 4, 8, 8)
    assert torch.equal(output(fresh, x), output(network, x))
    state.pop('conditioner.class_embedder.embedding_table.weight')
    with pytest.raises(InputError, match=r'net_g\.pth: conditioner'):
        fresh.load_trained_state(state, 'net_g.pth')


def test_export_is_a_plain_diffusers_model_with_untied_weights(sources, tmp_path):
    network = make_dit(num_labels=10, pretrained=sources[1])
    train_a_little(network)
    before = output(network, x := torch.randn(4, 4, 8, 8))
    network.to_plain().save_pretrained(tmp_path)
    again = make_dit(num_labels=10, pretrained=str(tmp_path), label_init='rows', local_files_only=True)
    torch.testing.assert_close(output(again, x), before, rtol=1e-6, atol=1e-6 * float(before.abs().max()))
    plain = DiTTransformer2DModel.from_pretrained(tmp_path)
    assert not any('gamma' in name for name, _ in plain.named_parameters())


def test_gradient_checkpointing_changes_nothing(sources):
    x = torch.randn(4, 4, 8, 8)
    gradients = []
    for checkpointing in (False, True):
        network = make_dit(num_labels=10, pretrained=sources[1], gradient_checkpointing=checkpointing)
        network(x, TIMESTEPS, LABELS).square().mean().backward()
        gradients.append([p.grad for p in network.parameters() if p.requires_grad])
    for plain, checkpointed in zip(*gradients):
        torch.testing.assert_close(plain, checkpointed, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(('size', 'patch_size', 'millions'), [('S', 2, 33), ('S', 4, 33), ('B', 4, 130)])
def test_published_sizes(size, patch_size, millions):
    network = make_dit(num_labels=1000, from_scratch={'size': size, 'patch_size': patch_size}, tuning='full')
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, rel=0.02)
    # The published initialisation predicts nothing at first.
    assert not output(network, torch.randn(4, 4, 32, 32)).any()


def test_bad_sources_are_refused_in_one_sentence(sources, tmp_path):
    state, path, _ = sources
    with pytest.raises(InputError, match='no DiT could be loaded'):
        load_dit(str(tmp_path / 'absent'), local_files_only=True)
    torch.save({'weight': torch.ones(1)}, tmp_path / 'other.pt')
    with pytest.raises(InputError, match='original layout'):
        load_dit(str(tmp_path / 'other.pt'))
    torch.save({k: v for k, v in state.items() if k != 'blocks.1.mlp.fc1.bias'}, tmp_path / 'torn.pt')
    with pytest.raises(InputError, match=r'blocks\.1\.mlp\.fc1\.bias'):
        load_dit(str(tmp_path / 'torn.pt'))
    with pytest.raises(InputError, match='11 labels'):
        make_dit(num_labels=11, pretrained=path)
    blocks_differ = DiTTransformer2DModel(
        num_layers=2, num_attention_heads=1, attention_head_dim=8, num_embeds_ada_norm=3
    )
    with pytest.raises(InputError, match='block 1'):
        share_conditioner(blocks_differ)


def test_lora_trains_its_factors_and_the_label_table(sources, tmp_path):
    pytest.importorskip('peft')
    network = make_dit(num_labels=10, pretrained=sources[1], label_init='rows', tuning='lora', lora_rank=4)
    plain = make_dit(num_labels=10, pretrained=sources[1], label_init='rows', tuning='full')
    x = torch.randn(4, 4, 8, 8)
    torch.testing.assert_close(output(network, x), output(plain, x))
    trained = network.trained_state()
    # Rank 4 beside query, key, value and projection (384 -> 384) and both layers of the MLP, in two blocks.
    assert sum(value.numel() for value in trained.values()) == 2 * 4 * (4 * 2 * 384 + 2 * (384 + 1536)) + 11 * 384
    before = {name: p.clone() for name, p in network.named_parameters() if not p.requires_grad}
    train_a_little(network)
    assert all(torch.equal(p, before[name]) for name, p in network.named_parameters() if name in before)
    state = {name: value.clone() for name, value in network.trained_state().items()}
    fresh = make_dit(num_labels=10, pretrained=sources[1], tuning='lora', lora_rank=4)
    fresh.load_trained_state(state, 'net_g.pth')
    expected = output(network, x)
    torch.testing.assert_close(output(fresh, x), expected)
    network.to_plain().save_pretrained(tmp_path)
    again = make_dit(num_labels=10, pretrained=str(tmp_path), label_init='rows', local_files_only=True)
    torch.testing.assert_close(output(again, x), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
