"""The test loop of ``basicsr test``."""

import json
import math
from pathlib import Path
from typing import Any

from basicsr.data import build_dataloader
from basicsr.utils import get_root_logger
from basicsr.utils.options import dict2str

from basicsr_distill.config.experiment import Experiment
from basicsr_distill.errors import InputError
from basicsr_distill.io.files import write_atomic
from basicsr_distill.runtime import distributed
from basicsr_distill.training import preflight
from basicsr_distill.training.folders import archive, check_writable
from basicsr_distill.training.image_names import NamedImages
from basicsr_distill.training.run import locked_experiment, prepare_run, start_log
from basicsr_distill.training.validation import validate


def test(experiment: Experiment) -> None:
    """Test a network; ``results/<name>`` with ``metrics.json`` is made in the ``root_path``.

    Args:
        experiment: of :func:`basicsr_distill.config.experiment.to_experiment`.

    Raises:
        InputError: the options or what they point to are wrong, and nothing has been written then; or a metric cannot
            be computed for some image: the others are in ``metrics.json``, where that one is null.
    """
    path, opt = experiment.path, experiment.opt
    prepare_run(experiment)
    text = path.read_text(encoding='utf-8')
    preflight.check_pretrained(experiment)
    datasets = {name: preflight.build_checked_dataset(experiment, name) for name in sorted(opt['datasets'])}
    preflight.check_data(experiment, datasets)
    model = preflight.build_checked_model(experiment)
    folder = Path(opt['path']['results_root'])
    with locked_experiment(folder):
        check_writable(path, folder)
        dump = dict2str(opt)
        if distributed.is_main():
            archive(folder)
            Path(opt['path']['visualization']).mkdir(parents=True)
        distributed.barrier()
        start_log(path, text, opt, dump, 'test')
        results, failures = _measure(opt, model, datasets)
        if distributed.is_main():
            write_atomic(folder / 'metrics.json', json.dumps(results, indent=2) + '\n')
        if failures:
            raise InputError(
                f'{path}: val.metrics: {"; ".join(failures)}; the others are in {folder / "metrics.json"}: leave '
                'the metric out, for example with --force_yml val:metrics:NAME=none, or the image.'
            )


def _measure(
    opt: dict[str, Any], model: Any, datasets: dict[str, Any]
) -> tuple[dict[str, dict[str, float | None]], list[str]]:
    """Mean metrics of every data set, and what could not be computed."""
    results: dict[str, dict[str, float | None]] = {}
    failures: list[str] = []
    for name in list(datasets):
        dataset = datasets.pop(name)  # one set at a time keeps its decoded images in memory
        loader = NamedImages(
            build_dataloader(
                dataset, opt['datasets'][name], num_gpu=opt['num_gpu'], dist=opt['dist'], seed=opt['manual_seed']
            )
        )
        get_root_logger().info('Testing %s (%d images) ...', dataset.opt['name'], len(dataset))
        failures += validate(opt, model, loader, opt['name'], None).describe()
        results[dataset.opt['name']] = {
            metric: None if math.isnan(value) else float(value)
            for metric, value in getattr(model, 'metric_results', {}).items()
        }
    return results, failures
