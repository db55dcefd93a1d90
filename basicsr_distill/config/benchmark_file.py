"""A benchmark file, read and checked once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from basicsr_distill.config.recipe import check_name
from basicsr_distill.config.sections.base import bind
from basicsr_distill.config.sections.benchmark import BenchmarkFileOptions, BenchmarkOptions
from basicsr_distill.config.yaml_files import read_option_file


@dataclass(frozen=True)
class BenchmarkFile:
    """path: the file.  name: of the benchmark.  options: what is compared."""

    path: Path
    name: str
    options: BenchmarkOptions

    @classmethod
    def load(cls, path: Path, force_yml: Sequence[str] = ()) -> 'BenchmarkFile':
        """Read and check a benchmark file.

        Args:
            path: of the file.
            force_yml: entries such as ``benchmark:seeds=[0,1]``.

        Raises:
            InputError: the file cannot be read, or a key is unknown, missing or wrong.
        """
        bound = bind(BenchmarkFileOptions, read_option_file(path, force_yml), str(path))
        check_name(path, bound.name)
        return cls(path, bound.name, bound.benchmark)
