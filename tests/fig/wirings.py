"""Small recorded wirings for tests of pages and pictures."""

import numpy as np

from genutil.runs.wiring_record import LayerState, RecordWriter, State

LAYOUT = [
    {
        "name": "graph", "targets": 8, "sources": 8, "acyclic": True, "outputs": [6, 8],
        "columns": [
            {"sources": [0, 2], "targets": None}, {"sources": [2, 5], "targets": [2, 5]},
            {"sources": [5, 8], "targets": [5, 8]},
        ],
    }
]  # fmt: skip
"""Two inputs, two groups of three; the last two nodes are also outputs."""
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

LARGE = [
    {
        "name": "graph", "targets": 120, "sources": 120, "acyclic": True, "outputs": [40, 120],
        "columns": [{"sources": [0, 40], "targets": None}, {"sources": [40, 120], "targets": [40, 120]}],
    }
]  # fmt: skip
"""40 inputs, a group of 80, all of whose nodes are also outputs."""
WEAK, DEAD_NODE = 100, 60
"""Of the large wiring: a node whose edges are the weakest, and a dead one."""


def large_state(step=0, count=5000):
    """A state of the large wiring with so many edges, no two of them as strong as each other."""
    random = np.random.default_rng(step)
    places = np.sort(random.choice(np.arange(40 * 120, 120 * 120), count, replace=False))
    weights = (random.permutation(count) + count) / (2 * count) * random.choice([-1, 1], count)
    rows, sources = np.divmod(places, 120)
    # From the group an edge leads to an output, so that only those from inputs lead to the node.
    weights[((rows == WEAK) & (sources < 40)) | (sources == WEAK)] /= 100
    live = np.arange(120) != DEAD_NODE
    return State({"step": step, "epoch": step}, {"graph": LayerState(places, weights.astype("f4"), live)})


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


def state(step, own_step=None):
    """The state of EDGES, step_number to be of another step."""
    step_number = step if own_step is None else own_step
    numbers = {"step": step_number, "epoch": step_number / 10}
    if step:
        numbers |= {"train_accuracy": 20.0 + step, "val_accuracy": 30.0 + step}
    return State(numbers, {"graph": layer_state(EDGES[step])})


def leave_record(folder, layout, states):
    """A run's folder with this record."""
    folder.mkdir(exist_ok=True)
    file = RecordWriter(folder / "wiring", layout)
    for one in states:
        file.append(one)
    return folder
