"""Devices and process groups: BasicSR on a CPU, and on the GPU that is there."""

from functools import partial
from typing import Any

import torch
from basicsr.models.realesrgan_model import RealESRGANModel
from basicsr.models.realesrnet_model import RealESRNetModel
from basicsr.utils import DiffJPEG, USMSharp, get_root_logger
from torch.nn.parallel import DataParallel

from basicsr_distill.errors import InputError
from basicsr_distill.host.patches.table import HostFunction, patch
from basicsr_distill.runtime import distributed


@patch(
    'basicsr.utils.dist_util:init_dist',
    'utils/dist_util.py:24',
    'takes the rank modulo the number of GPUs: division by zero on a CPU, the wrong GPU on a second machine',
    'basicsr train -opt options/train/EDSR/train_EDSR_Mx4_DIV2K.yml --launcher pytorch',
)
def _init_dist(original: HostFunction) -> HostFunction:
    def init_dist(launcher: str, backend: str = 'nccl', port: int | None = None) -> None:
        """The backend follows from the device; ``backend`` is what option files for GPUs say."""
        distributed.init(launcher, port)

    return init_dist


@patch(
    'basicsr.models.base_model:BaseModel.__init__',
    'models/base_model.py:18',
    'asks for CUDA wherever num_gpu is not 0, also on a machine without',
    'basicsr train -opt options/train/EDSR/train_EDSR_Mx4_DIV2K.yml, without a GPU',
)
def _base_init(original: HostFunction) -> HostFunction:
    def init(self: Any, opt: dict[str, Any]) -> None:
        original(self, opt)
        if self.device.type == 'cuda' and not torch.cuda.is_available():
            get_root_logger().warning(
                'num_gpu: %s is asked for, none found; the model is built on the CPU.', opt['num_gpu']
            )
            self.device = torch.device('cpu')

    return init


@patch(
    'basicsr.models.base_model:BaseModel.model_to_device',
    'models/base_model.py:98',
    'asks for the current CUDA device even on a CPU',
    'basicsr train -opt options/train/EDSR/train_EDSR_Mx4_DIV2K.yml, without a GPU',
)
def _model_to_device(original: HostFunction) -> HostFunction:
    def model_to_device(self: Any, net: torch.nn.Module) -> torch.nn.Module:
        net = net.to(self.device)
        if self.opt['dist']:
            return distributed.wrap(net, self.opt.get('find_unused_parameters', False))
        return DataParallel(net) if self.device.type == 'cuda' and self.opt['num_gpu'] > 1 else net

    return model_to_device


@patch(
    'basicsr.models.sr_model:SRModel.dist_validation',
    'models/sr_model.py:136',
    'rank 0 validates alone through DistributedDataParallel, whose forward broadcasts buffers (those of SwinIR, '
    'SRFormer, HiT): the ranks then wait for different collectives',
    'basicsr train -opt options/train/SwinIR/train_SwinIR_x4_distilled.yml --launcher pytorch',
)
def _dist_validation(original: HostFunction) -> HostFunction:
    def dist_validation(self: Any, *args: Any) -> None:
        wrapped = self.net_g
        self.net_g = self.get_bare_model(wrapped)
        try:
            original(self, *args)
        finally:
            self.net_g = wrapped

    return dist_validation


def _init_on_device(model: Any, original: HostFunction) -> HostFunction:
    def init(self: Any, opt: dict[str, Any]) -> None:
        super(model, self).__init__(opt)
        self.jpeger = DiffJPEG(differentiable=False).to(self.device)
        self.usm_sharpener = USMSharp().to(self.device)
        self.queue_size = opt.get('queue_size', 180)

    return init


_BLIND = 'basicsr train -opt options/train/RealESRGAN/train_RealESRGAN_blind_x4_distilled.yml'
_CUDA_ONLY = 'calls .cuda() whatever the device of the model'
patch(
    'basicsr.models.realesrnet_model:RealESRNetModel.__init__',
    'models/realesrnet_model.py:26',
    _CUDA_ONLY,
    f'{_BLIND} --force_yml model_type=RealESRNetModel, without a GPU',
)(partial(_init_on_device, RealESRNetModel))
patch(
    'basicsr.models.realesrgan_model:RealESRGANModel.__init__',
    'models/realesrgan_model.py:27',
    _CUDA_ONLY,
    f'{_BLIND}, without a GPU',
)(partial(_init_on_device, RealESRGANModel))


@patch(
    'basicsr.models.realesrnet_model:RealESRNetModel._dequeue_and_enqueue',
    'models/realesrnet_model.py:42',
    _CUDA_ONLY,
    f'{_BLIND} --force_yml model_type=RealESRNetModel, without a GPU',
)
@patch(
    'basicsr.models.realesrgan_model:RealESRGANModel._dequeue_and_enqueue',
    'models/realesrgan_model.py:43',
    _CUDA_ONLY,
    f'{_BLIND}, without a GPU',
)
def _queue_on_device(original: HostFunction) -> HostFunction:
    def _dequeue_and_enqueue(self: Any) -> None:
        if not hasattr(self, 'queue_lr'):
            batch_size = len(self.lq)
            if self.queue_size % batch_size:
                raise InputError(
                    f'queue_size: {self.queue_size} is not a multiple of the batch size {batch_size}; '
                    f'set queue_size: {batch_size * max(1, round(self.queue_size / batch_size))}.'
                )
            self.queue_lr = self.lq.new_zeros(self.queue_size, *self.lq.shape[1:])
            self.queue_gt = self.gt.new_zeros(self.queue_size, *self.gt.shape[1:])
            self.queue_ptr = 0
        original(self)

    return _dequeue_and_enqueue


@patch(
    'basicsr.utils.img_process_util:filter2D',
    'utils/img_process_util.py:29',
    'views what may be in channels_last order (the output of DiffJPEG is, on a CPU)',
    f'{_BLIND}, without a GPU',
)
def _filter2d(original: HostFunction) -> HostFunction:
    def filter2D(img: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        return original(img.contiguous(), kernel)

    return filter2D
