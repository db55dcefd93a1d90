"""Packaging of basicsr-distill; tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r"__version__ = '(.+)'", (ROOT / 'basicsr_distill' / '__init__.py').read_text())[1]
# What some recipes ask for beyond the rest.
EXTRAS = {
    'lora': ['peft>=0.13'],
    'onnx': ['onnx>=1.16', 'onnxscript>=0.5', 'onnxruntime>=1.18'],
    'slurm': ['submitit>=1.5'],
    'hf': ['datasets>=3'],
    'iqa': ['pyiqa>=0.1.10'],  # PolyForm Noncommercial
    'deflate': ['deflate>=0.7'],  # libdeflate: deflated images are written twice as fast as with zlib
}

setup(
    name='basicsr-distill',
    version=VERSION,
    description='Dataset distillation for super-resolution, as a plugin of BasicSR',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    url='https://arxiv.org/abs/2509.14777',
    project_urls={
        'Paper': 'https://arxiv.org/abs/2509.14777',
        'BasicSR': 'https://github.com/XPixelGroup/BasicSR',
    },
    packages=find_packages(include=['basicsr_distill', 'basicsr_distill.*']),
    package_data={
        'basicsr_distill': ['py.typed', 'photos/*'],
        'basicsr_distill.benchmark.report': ['*.j2'],
        'basicsr_distill.stages.extract': ['*.j2'],
    },
    python_requires='>=3.10,<3.15',
    install_requires=[
        # BasicSR is published as source only, and its setup.py fails on Python 3.13: there `python -m
        # basicsr_distill.host.build` installs it, and without the marker pip would end in a traceback before anyone is
        # told.
        'basicsr>=1.4.2; python_version < "3.13"',
        'torch>=2.6',  # the first release whose torch.load refuses arbitrary code by default
        'torchvision>=0.21',
        'diffusers>=0.35',
        'open_clip_torch>=2.24',
        'scikit-learn>=1.4',
        'scikit-image>=0.22',
        'opencv-python>=4.8',
        'numpy>=1.26',
        'scipy>=1.11',
        'pillow>=10',
        'filelock>=4',  # the first line that closes locks in forked children and never cuts their file short
        'threadpoolctl>=3.1',
        'lmdb>=1.4',
        'huggingface_hub>=0.23',
        'pyyaml>=6',
        'pydantic>=2.10',
        'tqdm>=4.66',
        'matplotlib>=3.8',
        'jinja2>=3.1',
        'lpips>=0.1.4',
        'safetensors>=0.4.3',
    ],
    extras_require={
        **EXTRAS,
        'test': [
            *EXTRAS['lora'],
            *EXTRAS['slurm'],
            *EXTRAS['onnx'],
            *EXTRAS['deflate'],
            'spandrel>=0.4',
            'hypothesis>=6.100',
            'pytest>=8',
            'jsonschema>=4',
            'pytest-timeout>=2.3',
            'pytest-xdist>=3.6',
            'ruff>=0.6',
            'mypy>=1.11',
            'import-linter>=2.1',
            'types-PyYAML',
            'types-tqdm',
        ],
    },
    entry_points={
        'console_scripts': ['basicsr = basicsr_distill.cli:command', 'basicsr-distill = basicsr_distill.cli:command'],
    },
    classifiers=[
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Programming Language :: Python :: 3.14',
    ],
)
