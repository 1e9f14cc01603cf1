"""What pictures hold, for tests."""

import numpy as np
from PIL import Image


def written(path, *names):
    for name in names:
        with Image.open(path / f"{name}.png") as image:
            assert min(image.size) > 300
            assert np.asarray(image.convert("L")).std() > 5  # something is drawn
        assert (path / f"{name}.svg").read_text().startswith("<?xml")


def lines_of(axis):
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axis.get_lines()}
