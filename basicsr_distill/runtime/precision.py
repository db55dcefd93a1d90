"""What the precisions of option files are in torch."""

import torch

from basicsr_distill.options import Precision

DTYPES: dict[Precision, torch.dtype] = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
