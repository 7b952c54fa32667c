"""Reduce an image to a few colours: k-means over its pixels.

The assignment of pixels to colours is a matrix product with the minimum of each row; on Hopper,
``NAS_KERNEL_EXTENDED_PRECISION=hopper`` takes the minimum while it multiplies.
"""

import torch
from sklearn.datasets import load_sample_image

from kernels.extended_precision.nearest import kmeans


def main(colours: int = 16) -> float:
    """Print and return the root mean square error of a photograph in so many colours."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    image = torch.from_numpy(load_sample_image("china.jpg")[::3, ::3].copy()).to(device)
    pixels = image.flatten(0, 1).float() / 255
    found = kmeans(pixels, colours, rounds=20)
    error = (found.inertia[-1] / pixels.numel()) ** 0.5
    print(f"{colours} colours instead of {len(pixels.unique(dim=0))}: error {error:.4f}")  # noqa: T201
    return error


if __name__ == "__main__":
    main()
