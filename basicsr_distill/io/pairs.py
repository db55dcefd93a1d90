"""Whether an HR image and an LR image can be a pair."""

# Benchmarks crop HR images to a multiple of 12, which is one of 2, 3 and 4, and often publish the uncropped ones.
_COMMON_MULTIPLE = 12


def pair_fault(hr_size: tuple[int, int], lr_size: tuple[int, int], scale: int, is_train: bool) -> str | None:
    """What is wrong with the sizes of a pair, or None.

    In training the HR image is exactly ``scale`` times the LR image. In a test BasicSR cuts off what is left over at
    the right and lower edge of the HR image, which is right for the few pixels that cropping to a multiple leaves, and
    a wrong number without a word for LR images of another scale.

    Args:
        hr_size: width, height in pixels.
        lr_size: width, height in pixels.
        scale: of the experiment.
    """
    left_over = [hr - lr * scale for hr, lr in zip(hr_size, lr_size)]
    limit = 1 if is_train else max(scale, _COMMON_MULTIPLE)
    if all(0 <= rest < limit and (is_train or 4 * rest <= hr) for rest, hr in zip(left_over, hr_size)):
        return None
    (hr_width, hr_height), (lr_width, lr_height) = hr_size, lr_size
    likely = {round(hr / lr) for hr, lr in zip(hr_size, lr_size)}
    hint = f', it is that of scale {likely.pop()}' if len(likely) == 1 and scale not in likely else ''
    return (
        f'is {lr_width}x{lr_height}, which at scale {scale} is not the partner of {hr_width}x{hr_height}{hint}; '
        f'{"crop HR images to a multiple of the scale and " if is_train and not hint else ""}'
        'make the LR images anew (scripts/generate_lr_bicubic.py) or correct scale'
    )


def is_doubtful_pair(hr_size: tuple[int, int], lr_size: tuple[int, int], scale: int) -> bool:
    """Whether a test leaves more of the HR image out than cropping to a multiple of the scale does."""
    return any(hr - lr * scale >= scale for hr, lr in zip(hr_size, lr_size))
