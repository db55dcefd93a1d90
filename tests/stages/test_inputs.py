"""Inputs of the stages: every file that an option names, and the patches that clusters belong to."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import open_clip
import pytest
import torch
from basicsr.archs import build_network
from latent_recipe import SCRATCH, dataset_section, make_stages, write_recipe
from latent_recipe import recipe as training
from safetensors.torch import save_file

from basicsr_distill.config.recipe import Recipe
from basicsr_distill.data.labelled_patch_dataset import LabelledPatchDataset
from basicsr_distill.data.latent_patch_dataset import LatentPatchDataset
from basicsr_distill.errors import InputError
from basicsr_distill.io.files import sha256_tree
from basicsr_distill.io.inputs import experiment_inputs
from basicsr_distill.io.manifest import SelectRow, read_labels, read_table
from basicsr_distill.stages.cluster import read_features
from basicsr_distill.stages.pipeline import distill, plan

CLIP = {
    'embed_dim': 8,
    'vision_cfg': {'image_size': 16, 'layers': 1, 'width': 16, 'patch_size': 8, 'head_width': 8},
    'text_cfg': {'context_length': 8, 'vocab_size': 16, 'width': 8, 'heads': 1, 'layers': 1},
}
EDSR = {'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_block': 1, 'upscale': 4}
RRDB = {'type': 'RRDBNet', 'num_in_ch': 3, 'num_out_ch': 3, 'scale': 4, 'num_feat': 4, 'num_block': 1, 'num_grow_ch': 4}


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_stages(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recipe(**sections: Any) -> Recipe:
    content = {
        'extract': {'dataroot': 'photos', 'save_dir': 'patches', 'patch_size': 32},
        'cluster': {'encoder': {'type': 'texture'}, 'num_clusters': 2, 'save_dir': 'clusters'},
        'scale': 4,
        'name': 'tiny',
        **sections,
    }
    return Recipe.load(write_recipe(Path('recipe.yml'), content))


def selecting(**keys: Any) -> Recipe:
    return recipe(select={'num_images': 4, 'save_dir': 'set', 'encoder': {'type': 'texture'}, **keys})


def chosen(folder: str = 'set') -> list[int]:
    return [int(row.patch[-10:-4]) for row in read_table(Path(folder, 'manifest.csv'), SelectRow)]


def save_vae(seed: int) -> dict[str, Any]:
    """A small autoencoder in the folder vae; the section of its codec."""
    torch.manual_seed(seed)
    diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=['DownEncoderBlock2D'] * 2,
        up_block_types=['UpDecoderBlock2D'] * 2,
        norm_num_groups=4,
        latent_channels=4,
    ).save_pretrained('vae')
    return {'type': 'autoencoder_kl', 'pretrained': 'vae', 'local_files_only': True}


def save_clip(seed: int) -> dict[str, Any]:
    """A small open_clip model in the folder clip; the section of its encoder."""
    Path('clip').mkdir(exist_ok=True)
    Path('clip/open_clip_config.json').write_text(json.dumps({'model_cfg': CLIP, 'preprocess_cfg': {}}))
    torch.manual_seed(seed)
    model = open_clip.CLIP(embed_dim=8, vision_cfg=CLIP['vision_cfg'], text_cfg=CLIP['text_cfg'])
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()}, 'clip/open_clip_model.safetensors'
    )
    return {'type': 'open_clip', 'name': 'local-dir:clip', 'pretrained': None, 'precision': 'fp32'}


def save_network(section: dict[str, Any], path: str, seed: int) -> None:
    torch.manual_seed(seed)
    torch.save({'params': build_network(dict(section)).state_dict()}, path)


def gsdd(folder: str = 'set') -> Recipe:
    options = training(Path())
    data = {key: options['datasets']['train'][key] for key in ('name', 'dataroot', 'labels_file', 'batch_size_per_gpu')}
    return recipe(
        model_type='GSDDModel',
        num_gpu=0,
        logger=options['logger'],
        datasets={'train': {**data, 'type': 'LabelledPatchDataset'}},
        network_g={'type': 'LatentImages', 'num_labels': 2, 'images_per_label': 2, 'size_px': 8},
        train={
            'total_iter': 2,
            'optim_g': {'type': 'Adam', 'lr': 1e-2},
            'scheduler': {'type': 'MultiStepLR', 'milestones': [100]},
            'extractor': {'type': 'random_conv', 'width': 4, 'depth': 1},
            'generator': dict(RRDB),
            'generator_weights': 'rrdb.pth',
        },
        sample={'images_per_cluster': 2, 'save_dir': folder},
    )


def denoiser(codec: dict[str, Any], network: dict[str, Any], **sections: Any) -> Recipe:
    options = training(Path())
    options['datasets']['train'].update(codec=codec, use_hflip=False)
    options['network_g'] = {'type': 'MinimaxDiT', 'num_labels': 2, **network}
    options['train'] = {**options['train'], 'total_iter': 2}
    sample = {'images_per_cluster': 1, 'num_steps': 2, 'guidance_scale': 1, 'save_dir': 'set'}
    return recipe(**{**options, 'sample': sample, **sections})


def test_reversed_scores_are_another_choice() -> None:
    names = list(read_labels(Path('clusters/labels.csv')))
    given = selecting(method='file', band=None, scores={'path': 'scores.txt'})
    Path('scores.txt').write_text(''.join(f'{name} {number}\n' for number, name in enumerate(names)))
    distill(given, ('select',))
    assert chosen() == [23, 22, 21, 20]
    distill(given, ('select',))
    Path('scores.txt').write_text(''.join(f'{name} {-number}\n' for number, name in enumerate(names)))
    with pytest.raises(InputError, match=r'set: was made with other options or inputs \(inputs\.scores\.path: was'):
        distill(given, ('select',))


def test_another_codec_in_the_same_folder_is_another_set() -> None:
    given = selecting(method='random', codec=save_vae(0))
    distill(given, ('select',))
    distill(given, ('select',))
    save_vae(1)
    with pytest.raises(InputError, match=r'inputs\.codec\.pretrained: was'):
        distill(given, ('select',))


def test_another_encoder_in_the_same_folder_makes_other_clusters() -> None:
    shutil.rmtree('clusters')
    given = recipe(
        cluster={'encoder': save_clip(0), 'num_clusters': 2, 'save_dir': 'clusters'},
        select={'num_images': 4, 'save_dir': 'set', 'encoder': save_clip(0)},
    )
    distill(given, ('cluster', 'select'))
    distill(given, ('cluster', 'select'))
    expected = chosen()
    save_clip(1)
    for stage, key in (('cluster', 'encoder.name'), ('select', 'encoder.name')):
        with pytest.raises(InputError, match=f'inputs.{key}: was'):
            distill(given, (stage,))
    # Features of the former encoder are not taken for those of this one.
    for path in ('set', 'apart'):
        shutil.rmtree(path, ignore_errors=True)
    distill(given, ('select',))
    other = recipe(
        cluster={'encoder': save_clip(1), 'num_clusters': 2, 'save_dir': 'anew'},
        select={'num_images': 4, 'save_dir': 'apart', 'encoder': save_clip(1)},
    )
    distill(other, ('cluster', 'select'))
    assert chosen() == chosen('apart') != expected


def test_a_teacher_keeps_the_keys_of_its_record() -> None:
    save_network(EDSR, 'teacher.pth', 0)
    Path('teacher.yml').write_text(json.dumps({'network_g': EDSR}))
    inputs = plan(
        selecting(targets={'type': 'mix', 'network': 'teacher.yml', 'weights': 'teacher.pth'}), 'select'
    ).inputs
    digests = {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in ('teacher.yml', 'teacher.pth')}
    assert {key: inputs[key] for key in inputs if 'targets' in key} == {
        'targets_network': digests['teacher.yml'],
        'targets_weights': digests['teacher.pth'],
    }


def test_records_of_stages_that_name_no_file_are_as_they_were(root: Path) -> None:
    stages = {
        name: hashlib.sha256(Path(name, 'stage.json').read_bytes()).hexdigest() for name in ('patches', 'clusters')
    }
    assert plan(selecting(), 'select').inputs == stages
    assert plan(recipe(), 'cluster').inputs == {'patches': stages['patches']}
    given = denoiser({'type': 'block_pca', 'components': 16}, {'tuning': 'full', 'from_scratch': dict(SCRATCH)})
    assert plan(given, 'finetune').inputs == {'dataroot': stages['patches'], 'labels_file': stages['clusters']}


def test_latents_of_one_generator_do_not_go_through_another() -> None:
    save_network(RRDB, 'rrdb.pth', 0)
    distill(gsdd(), ('finetune', 'sample'))
    distill(gsdd(), ('finetune', 'sample'))
    save_network(RRDB, 'rrdb.pth', 1)
    with pytest.raises(InputError, match=r'experiments/tiny: .*inputs\.train\.generator_weights: was'):
        distill(gsdd(), ('finetune',))
    for folder in ('set', 'another'):
        with pytest.raises(InputError, match=r'tiny: was made with another file or folder as train\.generator_weights'):
            distill(gsdd(folder), ('sample',))
    # A training by `basicsr train` has no record; the set itself still knows.
    Path('experiments/tiny/stage.json').unlink()
    with pytest.raises(InputError, match=r'set: .*inputs\.train\.generator_weights: was'):
        distill(gsdd(), ('sample',))


def test_latents_of_one_codec_are_not_decoded_by_another() -> None:
    given = denoiser(save_vae(0), {'tuning': 'full', 'from_scratch': {**SCRATCH, 'in_channels': 4, 'sample_size': 16}})
    distill(given, ('finetune', 'sample'))
    distill(given, ('finetune', 'sample'))
    save_vae(1)
    with pytest.raises(InputError, match=r'inputs\.datasets\.train\.codec\.pretrained: was'):
        distill(given, ('finetune',))
    with pytest.raises(InputError, match=r'another file or folder as datasets\.train\.codec\.pretrained'):
        distill(given, ('sample',))


def test_latents_know_the_files_of_their_codec(root: Path) -> None:
    section = dataset_section(root, codec=save_vae(0))
    LatentPatchDataset(section).prepare()
    LatentPatchDataset(section).prepare()
    save_vae(1)
    with pytest.raises(InputError, match='holds latents made with another codec'):
        LatentPatchDataset(section).prepare()


def save_dit(seed: int) -> None:
    torch.manual_seed(seed)
    dit = diffusers.DiTTransformer2DModel(
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=16,
        out_channels=32,
        sample_size=4,
        num_embeds_ada_norm=5,
    )
    dit.save_pretrained('dit')


def test_other_published_weights_in_the_same_folder_are_another_denoiser() -> None:
    save_dit(0)
    given = denoiser({'type': 'block_pca', 'components': 16}, {'tuning': 'none', 'pretrained': 'dit'})
    distill(given, ('sample',))
    distill(given, ('sample',))
    save_dit(1)
    with pytest.raises(InputError, match=r'set: .*inputs\.network_g\.pretrained: was'):
        distill(given, ('sample',))


def test_an_encoder_changed_after_clustering_does_not_judge_what_is_drawn() -> None:
    shutil.rmtree('clusters')
    save_dit(0)
    given = denoiser(
        {'type': 'block_pca', 'components': 16},
        {'tuning': 'none', 'pretrained': 'dit'},
        cluster={'encoder': save_clip(0), 'num_clusters': 2, 'save_dir': 'clusters'},
    )
    distill(given, ('cluster', 'sample'))
    save_clip(1)
    shutil.rmtree('set')
    with pytest.raises(InputError, match=r'^clusters: was made with another file or folder as encoder\.name'):
        distill(given, ('sample',))


def test_drawing_before_clustering_is_refused() -> None:
    save_dit(0)
    Path('clusters/stage.json').unlink()
    with pytest.raises(InputError, match=r'^clusters: no stage\.json there; run the stage'):
        distill(denoiser({'type': 'block_pca', 'components': 16}, {'tuning': 'none', 'pretrained': 'dit'}), ('sample',))


def test_every_file_of_a_training_of_a_stock_network() -> None:
    content = {
        'name': 'edsr',
        'model_type': 'SRModel',
        'scale': 4,
        'num_gpu': 0,
        'network_g': {**EDSR, 'load_path': 'a.pth'},
        'datasets': {
            'train': {
                'name': 'train',
                'type': 'PairedImageDataset',
                'dataroot_gt': 'patches/images',
                'dataroot_lq': 'patches/images',
                'gt_size': 32,
                'use_hflip': True,
                'use_rot': True,
                'io_backend': {'type': 'disk'},
                'batch_size_per_gpu': 1,
            }
        },
        'path': {'pretrain_network_g': 'b.pth', 'param_key_g': 'params', 'strict_load_g': True},
        'train': {
            'total_iter': 1,
            'optim_g': {'type': 'Adam'},
            'scheduler': {'type': 'MultiStepLR'},
            'pixel_opt': {'type': 'L1Loss', 'loss_weight': 1.0, 'table': 'c.csv'},
        },
    }
    given = Recipe.parse(Path('edsr.yml'), content)
    assert experiment_inputs(given) == {}
    for name in ('a.pth', 'b.pth', 'c.csv'):
        Path(name).write_text(name)
    keys = {'network_g.load_path': 'a.pth', 'path.pretrain_network_g': 'b.pth', 'train.pixel_opt.table': 'c.csv'}
    first = experiment_inputs(given)
    assert first == {key: hashlib.sha256(name.encode()).hexdigest() for key, name in keys.items()}
    Path('b.pth').write_text('fine-tuned since')
    assert {key for key, digest in experiment_inputs(given).items() if digest != first[key]} == {
        'path.pretrain_network_g'
    }


def test_a_folder_is_the_names_and_contents_of_its_files() -> None:
    for name, text in (('f/a/one', '1'), ('f/two', '2'), ('f/.cache/note', 'x')):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    lines = ''.join(
        f'{hashlib.sha256(text.encode()).hexdigest()} {name}\n' for name, text in (('a/one', '1'), ('two', '2'))
    )
    assert sha256_tree(Path('f')) == hashlib.sha256(lines.encode()).hexdigest()
    Path('f/.cache/note').write_text('y')
    assert sha256_tree(Path('f')) == hashlib.sha256(lines.encode()).hexdigest()
    Path('f/two').rename('f/three')
    assert sha256_tree(Path('f')) != hashlib.sha256(lines.encode()).hexdigest()
    assert sha256_tree(Path('f/three')) == hashlib.sha256(b'2').hexdigest()


def other_patches(root: Path) -> None:
    """Patches of the same names and number, of another extraction."""
    record = json.loads(Path('patches/stage.json').read_text())
    Path('patches/stage.json').write_text(json.dumps({**record, 'inputs': {'dataroot': 'others'}}))


def test_clusters_of_other_patches_are_not_chosen_by(root: Path) -> None:
    distill(selecting(), ('select',))
    other_patches(root)
    for folder in ('set', 'another'):
        with pytest.raises(
            InputError,
            match=r'^clusters: holds the clusters of other patches than those in patches; '
            r'run the stage cluster on these, with another cluster\.save_dir\.$',
        ):
            distill(selecting(save_dir=folder), ('select',))


def test_clusters_of_other_patches_are_not_trained_on_or_drawn_from(root: Path) -> None:
    section = {key: value for key, value in dataset_section(root).items() if key not in ('codec', 'latents_dir')}
    labelled = {**section, 'type': 'LabelledPatchDataset'}
    assert len(LabelledPatchDataset(labelled)) == len(LatentPatchDataset(dataset_section(root))) == 24
    save_dit(0)
    given = denoiser({'type': 'block_pca', 'components': 16}, {'tuning': 'none', 'pretrained': 'dit'})
    other_patches(root)
    for read in (
        lambda: LabelledPatchDataset(labelled),
        lambda: LatentPatchDataset(dataset_section(root)),
        lambda: distill(given, ('sample',)),
    ):
        with pytest.raises(InputError, match='holds the clusters of other patches than those in'):
            read()


def test_labels_of_ones_own_are_taken_by_name(root: Path) -> None:
    Path('own').mkdir()
    rows = [(name, 1 - label) for name, label in read_labels(Path('clusters/labels.csv')).items()]
    Path('own/labels.csv').write_text('name,label\n' + ''.join(f'{name},{label}\n' for name, label in rows[::-1]))
    dataset = LatentPatchDataset(dataset_section(root, labels_file='own/labels.csv'))
    assert dataset.labels == [label for _, label in rows]


def test_features_are_those_of_the_names(root: Path) -> None:
    names = list(read_labels(Path('clusters/labels.csv')))
    features = np.load('clusters/features.npy')
    assert isinstance(read_features(Path('clusters'), names), np.memmap)
    wanted = [names[number] for number in (5, 0, 23)]
    np.testing.assert_array_equal(read_features(Path('clusters'), wanted), features[[5, 0, 23]])
