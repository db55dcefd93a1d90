"""A patches folder and labels like those of the extract and cluster stages, cut from a photograph."""

import csv

import cv2
import skimage.data

from basicsr_distill.manifest import MANIFEST_NAME, PatchRow, write_table


def make_patches(root, count=12, size=32, num_labels=3):
    """Write ``root/patches`` and ``root/clusters/labels.csv``; returns the rows and labels."""
    photo = skimage.data.astronaut()
    images = root / 'patches' / 'images'
    images.mkdir(parents=True)
    rows, labels = [], []
    for number in range(count):
        top, left = 40 + 37 * (number // 10), 20 + 45 * (number % 10)
        name = f'astronaut_{number:06d}.png'
        cv2.imwrite(str(images / name), photo[top:top + size, left:left + size, ::-1])
        rows.append(PatchRow(name, 'astronaut.png', '0' * 64, top, left, size, 'matlab_rgb', 20.0 + number))
        labels.append(number % num_labels)
    write_table(root / 'patches' / MANIFEST_NAME, rows, PatchRow)
    (root / 'clusters').mkdir()
    with (root / 'clusters' / 'labels.csv').open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['name', 'label'])
        writer.writerows((row.name, label) for row, label in zip(rows, labels))
    return rows, labels


def dataset_section(root, **more):
    """Section of a LatentPatchDataset over :func:`make_patches`."""
    return {'name': 'train', 'type': 'LatentPatchDataset', 'phase': 'train', 'dataroot': str(root / 'patches'),
            'labels_file': str(root / 'clusters' / 'labels.csv'), 'latents_dir': str(root / 'latents'),
            'codec': {'type': 'block_pca', 'components': 16}, 'batch_size_per_gpu': 4, **more}
