"""Small recorded wirings for tests of pages and pictures."""

import numpy as np

from genutil.wiring_file import LayerState, State, WiringFile

LAYOUT = [
    {
        "name": "graph", "targets": 8, "sources": 8, "acyclic": True, "outputs": [6, 8],
        "columns": [
            {"sources": [0, 2], "targets": None}, {"sources": [2, 5], "targets": [2, 5]},
            {"sources": [5, 8], "targets": [5, 8]},
        ],
    }
]  # fmt: skip
"""Two inputs, two blocks of three; the last two nodes are also outputs."""
EDGES = {
    0: [(2, 0), (3, 1), (6, 3)],
    10: [(2, 0), (5, 2), (7, 5), (6, 3)],
    20: [(2, 0), (5, 2), (7, 5), (0, 3)],
}
"""(target, source) by step. The last one's fourth leads back, so that it is never read."""
CYCLIC = [
    {
        "name": "graph", "targets": 8, "sources": 8, "acyclic": False, "outputs": None,
        "columns": [{"sources": part, "targets": part} for part in ([0, 2], [2, 6], [6, 8])],
    }
]  # fmt: skip


def layer_state(pairs, weights=None):
    """Edges as pairs (target, source) of the layouts; their weights are 1/n, −2/n, 3/n, … in rising order."""
    order = sorted(range(len(pairs)), key=lambda n: pairs[n])
    if weights is None:
        values = [(-1) ** n * (n + 1) / len(pairs) for n in range(len(pairs))]
    else:
        values = [weights[n] for n in order]
    places = np.array([pairs[n][0] * 8 + pairs[n][1] for n in order], np.int64)
    live = np.isin(np.arange(8), [source for _, source in pairs])
    return LayerState(places, np.array(values, np.float32), live)


def state(step, told_step=None):
    """The state of EDGES, told to be of another step."""
    told = step if told_step is None else told_step
    numbers = {"step": told, "epoch": told / 10}
    if step:
        numbers |= {"train_accuracy": 20.0 + step, "val_accuracy": 30.0 + step}
    return State(numbers, {"graph": layer_state(EDGES[step])})


def leave_record(folder, layout, states):
    """A run's folder with this record."""
    folder.mkdir(exist_ok=True)
    file = WiringFile(folder / "wiring.npz", layout)
    for one in states:
        file.append(one)
    return folder
