"""The test loop of ``basicsr test``."""

import json
from pathlib import Path

from basicsr.data import build_dataloader
from basicsr.utils import (
    mkdir_and_rename,
)

from basicsr_distill.config.experiment import Experiment
from basicsr_distill.io.files import write_atomic
from basicsr_distill.runtime import distributed
from basicsr_distill.training import preflight
from basicsr_distill.training.image_names import NamedImages
from basicsr_distill.training.run import locked_experiment, settle_run, start_log


def test(experiment: Experiment) -> None:
    """Test a network; ``results/<name>`` with ``metrics.json`` is made in the ``root_path``.

    Args:
        experiment: of :func:`basicsr_distill.config.experiment.to_experiment`.

    Raises:
        InputError: the options or what they point to are wrong; nothing has been written then.
    """
    path, opt = experiment.path, experiment.opt
    settle_run(experiment)
    text = path.read_text(encoding='utf-8')
    preflight.check_pretrained(experiment)
    datasets = {name: preflight.build_checked_dataset(experiment, name) for name in sorted(opt['datasets'])}
    preflight.check_data(experiment, datasets)
    model = preflight.build_checked_model(experiment)
    folder = Path(opt['path']['results_root'])
    with locked_experiment(folder):
        if distributed.is_main():
            mkdir_and_rename(str(folder))
            Path(opt['path']['visualization']).mkdir()
        distributed.barrier()
        logger = start_log(path, text, opt, 'test')
        results = {}
        for name in list(datasets):
            dataset = datasets.pop(name)  # one set at a time keeps its decoded images in memory
            loader = NamedImages(build_dataloader(dataset, opt['datasets'][name], num_gpu=opt['num_gpu'], dist=opt['dist'],
                                                  seed=opt['manual_seed']))
            logger.info('Testing %s (%d images) ...', dataset.opt['name'], len(dataset))
            model.validation(loader, current_iter=opt['name'], tb_logger=None, save_img=opt['val']['save_img'])
            results[dataset.opt['name']] = {metric: float(value)
                                            for metric, value in getattr(model, 'metric_results', {}).items()}
        if distributed.is_main():
            write_atomic(folder / 'metrics.json', json.dumps(results, indent=2) + '\n')
