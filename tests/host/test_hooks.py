"""The host's import: what it lacks is answered for, the wrong host is refused, workers start with the plugin."""

import importlib
import importlib.util
import os
import subprocess
import sys
import textwrap
import types
from importlib.machinery import PathFinder
from multiprocessing import spawn
from pathlib import Path

import basicsr
import pytest
import torch

from basicsr_distill.errors import InputError
from basicsr_distill.host import build, hooks

REPOSITORY = Path(__file__).parents[2]
HOST_FOLDER = Path(basicsr.__file__).parent


def python(code: str, *arguments: str, folder: Path = REPOSITORY, **environment: str) -> subprocess.CompletedProcess:
    """Run code in a process that has imported nothing yet."""
    return subprocess.run(
        [sys.executable, '-c', textwrap.dedent(code), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, 'PYTHONPATH': str(REPOSITORY), **environment},
    )


def test_importing_the_plugin_imports_nothing_heavy():
    result = python("""
        import sys, basicsr_distill
        print(sorted({'torch', 'basicsr', 'numpy', 'cv2', 'pydantic'} & set(sys.modules)))
    """)
    assert result.stdout.strip() == '[]', result.stderr


def test_fresh_process_host_fails_alone_and_is_complete_with_the_plugin():
    result = python("""
        import sys
        sys.path = [folder for folder in sys.path if folder]
        try:
            import basicsr
        except ImportError as error:
            print(error.name)
        import basicsr_distill
        from basicsr.archs import build_network
        from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY
        import basicsr
        print('SRFormer' in ARCH_REGISTRY, 'DistilledPatchDataset' in DATASET_REGISTRY,
              'DiversityLoss' in LOSS_REGISTRY)
        print(type(basicsr.__spec__.loader).__name__)
    """)
    assert result.stdout.split('\n')[:3] == [
        'torchvision.transforms.functional_tensor',
        'True True True',
        'SourceFileLoader',
    ], result.stderr


def test_a_component_can_be_the_first_import():
    result = python("""
        import basicsr_distill.archs.srformer_arch
        from basicsr.utils.registry import ARCH_REGISTRY, LOSS_REGISTRY
        print('SRFormer' in ARCH_REGISTRY, 'DiversityLoss' in LOSS_REGISTRY)
    """)
    assert result.stdout.strip() == 'True True', result.stderr


def test_install_is_idempotent():
    before = list(sys.meta_path)
    hooks.install()
    assert sys.meta_path == before
    kinds = [type(finder).__name__ for finder in sys.meta_path]
    # Real modules win. What other libraries append later answers for names of their own.
    assert kinds.index('_HostHook') < kinds.index('type') < kinds.index('_AliasFinder')


def test_functional_tensor_is_gone_and_answered_for():
    line = (HOST_FOLDER / 'data/degradations.py').read_text().split('\n')[7]
    assert line == 'from torchvision.transforms.functional_tensor import rgb_to_grayscale'
    import torchvision.transforms

    name = 'torchvision.transforms.functional_tensor'
    assert PathFinder.find_spec(name, torchvision.transforms.__path__) is None
    image = torch.rand(2, 3, 4, 5)
    expected = (image * torch.tensor([0.2989, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    torch.testing.assert_close(importlib.import_module(name).rgb_to_grayscale(image, num_output_channels=1), expected)


def test_loose_version_is_answered_for_where_distutils_is_gone():
    line = (HOST_FOLDER / 'archs/arch_util.py').read_text().split('\n')[5]
    assert line == 'from distutils.version import LooseVersion'
    finder = next(finder for finder in sys.meta_path if type(finder).__name__ == '_AliasFinder')
    package, module = finder.find_spec('distutils'), finder.find_spec('distutils.version')
    assert package.submodule_search_locations == [] and module.submodule_search_locations is None
    made = importlib.util.module_from_spec(module)
    module.loader.exec_module(made)
    assert made.LooseVersion('0.29.2+cpu') >= made.LooseVersion('0.9.0') > made.LooseVersion('0.8.1')
    assert finder.find_spec('distutils.util') is None
    if sys.version_info < (3, 12):
        import distutils.version

        assert distutils.version.__file__  # the real one won


FORKS = {
    'another release': ({'__init__.py': "__version__ = '1.3.5'"}, 'its version is 1.3.5'),
    'never installed': ({'__init__.py': 'from .version import __version__'}, "No module named 'basicsr.version'"),
    'own SRFormer': (
        {
            '__init__.py': "__version__ = '1.4.2'",
            'utils/__init__.py': '',
            'utils/registry.py': 'class SRFormer: pass\nARCH_REGISTRY = {"SRFormer": SRFormer}',
        },
        'it brings its own SRFormer',
    ),
    'lacks symbols': (
        {
            '__init__.py': "__version__ = '1.4.2'",
            'utils/__init__.py': '',
            'utils/registry.py': 'ARCH_REGISTRY = {}',
        },
        "No module named 'basicsr.archs'",
    ),
}


@pytest.mark.parametrize('fork', FORKS)
def test_fork_in_the_current_folder_is_refused(tmp_path, fork):
    files, reason = FORKS[fork]
    for name, content in files.items():
        (tmp_path / 'basicsr' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'basicsr' / name).write_text(content)
    result = python(
        """
        import basicsr_distill
        try:
            import basicsr
        except ImportError as error:
            print(error)
        from basicsr_distill import errors
        from basicsr_distill.host import hooks
        try:
            hooks.require_host()
        except errors.InputError as error:
            print('refused')
    """,
        folder=tmp_path,
    )
    message, refused = result.stdout.strip().split('\n')
    assert message.startswith(f'{tmp_path}/basicsr/__init__.py is not BasicSR 1.4.2 ({reason}'), result.stderr
    assert 'run from another folder' in message and refused == 'refused'


def test_missing_host_is_one_sentence_with_the_remedy(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(InputError, match='BasicSR is not installed'):
        hooks.require_host()
    assert f'run `python -m {build.__name__}`' in hooks.host_missing_message()


def test_component_without_a_host_says_so(tmp_path):
    result = python("""
        import sys, basicsr_distill
        from importlib.machinery import PathFinder
        sys.meta_path[:] = [f for f in sys.meta_path if f is not PathFinder]
        class NoHost(PathFinder):
            @classmethod
            def find_spec(cls, name, path=None, target=None):
                return None if name == 'basicsr' else PathFinder.find_spec(name, path, target)
        sys.meta_path.insert(-1, NoHost)
        try:
            import basicsr_distill.losses
        except ImportError as error:
            print(error)
    """)
    assert 'BasicSR is not installed' in result.stdout, result.stderr


@pytest.mark.parametrize(
    ('spec_name', 'file', 'expected'),
    [
        ('basicsr_distill.__main__', 'x.py', 'basicsr_distill.cli'),  # python -m
        (None, None, 'basicsr_distill.cli'),  # python -c
        (None, 'script.py', None),  # a script: workers import it
        ('pytest', 'x.py', 'pytest'),
    ],
)
def test_main_spec_is_set_only_where_workers_would_import_nothing(monkeypatch, spec_name, file, expected):
    main = types.ModuleType('__main__')
    main.__spec__ = spec_name and importlib.machinery.ModuleSpec(spec_name, None)
    if file:
        main.__file__ = file
    monkeypatch.setitem(sys.modules, '__main__', main)
    hooks.fix_main_spec()
    assert spawn.get_preparation_data('worker').get('init_main_from_name') == expected


@pytest.mark.long
def test_spawned_worker_dies_without_the_main_spec_and_lives_with_it():
    result = python("""
        import multiprocessing
        from basicsr_distill.host import hooks
        from basicsr.utils.misc import sizeof_fmt
        workers = []
        for fix in (False, True):
            if fix:
                hooks.fix_main_spec()
            workers.append(multiprocessing.get_context('spawn').Process(target=sizeof_fmt, args=(1,)))
            workers[-1].start()
        for worker in workers:
            worker.join()
        print([worker.exitcode for worker in workers])
    """)
    assert result.stdout.strip() == '[1, 0]', result.stderr
    assert 'functional_tensor' in result.stderr
