"""Networks leave for other programs: as ONNX at any size, and as checkpoints that spandrel reads."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from basicsr.archs import build_network
from networks import scatter
from sr_experiments import SMALL_NETWORKS, make_surroundings, shrink
from support import REPOSITORY

from basicsr_distill.archs.export import AnySize, export_onnx, needed_multiple
from basicsr_distill.config.experiment import to_experiment
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.config.yaml_files import read_option_file
from basicsr_distill.training import train as train_loop

NETWORKS: dict[str, dict[str, Any]] = {
    'EDSR': {'num_in_ch': 3, 'num_out_ch': 3, 'upscale': 4},
    'RCAN': {'num_in_ch': 3, 'num_out_ch': 3, 'upscale': 4},
    'SwinIR': {'upscale': 4, 'img_size': 16, 'window_size': 8, 'upsampler': 'pixelshuffle'},
    'RRDBNet': {'num_in_ch': 3, 'num_out_ch': 3, 'scale': 2},
    'SRFormer': {'upscale': 4},
    'HiT_SIR': {'upscale': 4},
    'HiT_SNG': {'upscale': 4},
    'HiT_SRF': {'upscale': 4},
}


@pytest.mark.parametrize('name', NETWORKS)
def test_onnx_does_what_torch_does_at_any_size(tmp_path: Path, name: str) -> None:
    pytest.importorskip('onnx')
    runtime = pytest.importorskip('onnxruntime')
    torch.manual_seed(0)
    section = {'type': name, **NETWORKS[name], **SMALL_NETWORKS[name]}
    scale = section.get('upscale') or section['scale']
    network = AnySize(scatter(build_network(dict(section)), 0.05), needed_multiple(section), scale).eval()
    export_onnx(network, tmp_path / 'x.onnx')
    session = runtime.InferenceSession(str(tmp_path / 'x.onnx'), providers=['CPUExecutionProvider'])
    for height, width in ((16, 16), (33, 24), (9, 20)):  # whole windows, odd, less than two windows
        lq = torch.rand(1, 3, height, width)
        with torch.no_grad():
            expected = network(lq).numpy()
        sr = session.run(None, {'lq': lq.numpy()})[0]
        assert sr.shape == expected.shape == (1, 3, height * scale, width * scale)
        assert np.abs(sr - expected).max() < 1e-4


def test_a_trained_network_is_exported_from_its_option_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(REPOSITORY / 'scripts'))
    import export_onnx as script
    import yaml

    options = shrink(read_option_file(REPOSITORY / 'options/test/SwinIR/test_SwinIR_x4.yml'))
    make_surroundings(options)
    Path('x.yml').write_text(yaml.safe_dump(options))
    monkeypatch.setattr(sys, 'argv', ['export_onnx', '-opt', 'x.yml', '--output', 'swinir.onnx'])
    assert script.main() == 0 and Path('swinir.onnx').is_file()
    options['path']['pretrain_network_g'] = None
    Path('x.yml').write_text(yaml.safe_dump(options))
    assert script.main() == 2
    assert 'x.yml: path.pretrain_network_g: is missing' in capsys.readouterr().err


@pytest.mark.parametrize('stem', ['SwinIR/train_SwinIR_x4_distilled', 'RealESRGAN/train_RealESRGAN_x4_distilled'])
def test_checkpoints_load_in_spandrel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stem: str) -> None:
    """It prefers the averaged weights."""
    spandrel = pytest.importorskip('spandrel')
    monkeypatch.chdir(tmp_path)
    path = REPOSITORY / f'options/train/{stem}.yml'
    options = shrink(read_option_file(path))
    options['train'].pop('perceptual_opt', None)
    if options['network_g']['type'] == 'RRDBNet':
        options['network_g']['num_grow_ch'] = 32  # spandrel takes the usual one for granted
    make_surroundings(options)
    train_loop.train(to_experiment(Recipe.parse(path, options), is_train=True, root=tmp_path))
    checkpoint = tmp_path / 'experiments' / options['name'] / 'models/net_g_2.pth'
    loaded = spandrel.ModelLoader().load_from_file(checkpoint)
    network = build_network(dict(options['network_g'])).eval()
    network.load_state_dict(torch.load(checkpoint, weights_only=True)['params_ema'])
    lq = torch.rand(1, 3, 24, 32)
    with torch.no_grad():
        assert loaded.scale == options['scale']
        assert torch.equal(loaded.model.eval()(lq), network(lq))
