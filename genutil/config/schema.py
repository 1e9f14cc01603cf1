"""Every key of an experiment: its type, range, default and meaning, once.

A group of keys is one class; its docstring is the heading that `--help` shows. Field descriptions are the
help text. Nothing else in the project repeats a default.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr

from genutil.experiment_name import checked_name
from wirings.rules import RULES

KNOWN_BUDGETS = ("uniform", "erk", "global", "mobilenet_width")
KNOWN_SCHEDULERS = ("multistep", "cosine", "linear_decaying", "exp_decaying")
KNOWN_OPTIMIZERS = ("sgd",)
FIXED_STEP_SOLVERS = ("euler", "midpoint", "rk4")
ALIASES = {"nesterov": "nestorov", "random_seed": "seed"}
NEVER_READ = ("val_resize", "prune")
"""Keys that stand in published files and never had an effect."""

_CLASS_PATH = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"


def _refuse_bool(value: Any) -> Any:
    """YAML's `yes` is no number, though Python would count it as 1."""
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


def _within_64_bits(value: int) -> int:
    """Larger numbers fit into no tensor's size, seed or counter."""
    if abs(value) >= 2**63:
        raise ValueError("must fit into 64 bits")
    return value


def _is_path(value: str) -> str:
    if "\0" in value:
        raise ValueError("must hold no null character")
    if os.path.expanduser(value).startswith("~"):
        raise ValueError(f"names the home folder of a user that this machine does not have: {value}")
    return value


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, (int, float, str)) and not isinstance(value, bool) else value


def _known_or_path(known: tuple[str, ...]) -> Any:
    pattern = "^(" + "|".join(known) + ")$|" + _CLASS_PATH
    return Field(pattern=pattern, json_schema_extra={"choices": [*known, "module:Name"]})


Int = Annotated[int, BeforeValidator(_refuse_bool), AfterValidator(_within_64_bits)]
Float = Annotated[float, BeforeValidator(_refuse_bool), Field(allow_inf_nan=False)]
ClassPath = Annotated[str, Field(pattern=_CLASS_PATH, json_schema_extra={"choices": ["module:Class"]})]
PathText = Annotated[str, AfterValidator(_is_path)]
Count = Annotated[Int, Field(ge=1)]
Fraction = Annotated[Float, Field(ge=0, le=1)]


class ExperimentKeys(BaseModel):
    """experiment"""

    name: Annotated[str, AfterValidator(checked_name)] | None = Field(
        None,
        description="what the experiment is called, any printable text; its folders have the name, or a "
        "safe form of it; by default the file's name",
    )
    model: ClassPath = Field(description="the network, as module:Class")
    data: ClassPath = Field(description="the data set, as module:Class")
    model_args: dict[str, Any] = Field({}, description="further arguments of a model class of your own")
    data_args: dict[str, Any] = Field({}, description="further arguments of a data class of your own")
    seed: Int = Field(0, ge=0, description="seed of weights, wiring, order and crops (also: random_seed)")
    seeds: Annotated[list[Annotated[Int, Field(ge=0)]], BeforeValidator(_as_list)] | None = Field(
        None, description="run the experiment once for each of these seeds; finished ones are left out"
    )


class WiringKeys(BaseModel):
    """wiring"""

    graph: Annotated[str, _known_or_path(tuple(RULES))] = Field(
        "dnw", description="edge rule: how the edges in use are chosen, or module:Class"
    )
    graph_args: dict[str, Any] = Field({}, description="further arguments of an edge rule of your own")
    prune_rate: Float = Field(
        0.0, ge=0, le=1, description="part of a layer's edges that is left out of the forward pass"
    )
    budget: Annotated[str, _known_or_path(KNOWN_BUDGETS)] | dict[str, Fraction] | None = Field(
        None,
        description="how many edges each layer gets: uniform, erk, global (one ranking of all layers), "
        "mobilenet_width (the published numbers), a mapping of patterns of layer names to densities, or "
        "module:function; default: as published",
        json_schema_extra={"choices": [*KNOWN_BUDGETS, "PATTERN=DENSITY ...", "module:function"]},
    )
    setting: Literal["static", "discrete_time", "continuous"] = Field(
        "static", description="how the graph is run; static graphs are acyclic"
    )
    edge_scope: Literal["all", "readable"] = Field(
        "all",
        description="choose among all entries of a graph's matrix (as published), or among those that the "
        "forward pass reads",
    )
    rho: Annotated[Float, Field(ge=0, le=1)] | Literal["gamma"] | None = Field(
        None,
        description="td, reg_td: probability of dropping a weak edge in training; gamma = the prune rate",
    )
    td_magnitude: bool = Field(
        False, description="td, reg_td: use magnitudes without their signs, as the published code did"
    )
    use_graph: PathText | None = Field(
        None, description="checkpoint whose weights, and so whose wiring, start a new training"
    )
    use_init: PathText | None = Field(
        None, description="checkpoint whose weights are taken over (with use_graph)"
    )


class NetworkKeys(BaseModel):
    """network"""

    in_channels: Count = Field(3, description="channels of an image")
    image_size: Count = Field(32, description="height and width of an image, in pixels")
    output_size: Count = Field(10, description="number of classes")
    dim: Count = Field(800, description="tiny graphs: nodes")
    downsample_dim: Count = Field(32, description="tiny graphs: nodes that the stem writes to")
    feature_dim: Count = Field(100, description="tiny graphs: output nodes, read by the classifier")
    layers: Count = Field(
        5, le=10_000, description="tiny graphs: blocks of a static graph, steps of a discrete one"
    )
    width_mult: Float = Field(1.0, gt=0, description="dense MobileNet: width multiplier")
    small: bool = Field(False, description="MobileNet graph: the classifier is wired, too")
    ode_solver: Literal[
        "dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun", "euler", "midpoint", "rk4"
    ] = Field("dopri5", description="continuous time: solver; the last three take steps of equal size")
    ode_rtol: Float = Field(1e-3, gt=0, description="continuous time: relative tolerance of a step")
    ode_atol: Float = Field(1e-3, gt=0, description="continuous time: absolute tolerance of a step")
    ode_steps: Annotated[Count, Field(le=100_000)] | None = Field(
        None, description="continuous time: steps of euler, midpoint and rk4; else 10"
    )
    ode_adjoint: bool = Field(
        False,
        description="continuous time: solve a second equation for the gradient, which takes less memory, "
        "more time, and is exact within the tolerance only",
    )


class TrainingKeys(BaseModel):
    """training"""

    batch_size: Count = Field(128, description="images of a training step, over all devices")
    num_epochs: Count = Field(160, description="passes over the training images")
    optimizer: Annotated[str, _known_or_path(KNOWN_OPTIMIZERS)] = Field(
        "sgd", description="sgd, or module:function that makes an optimizer"
    )
    lr: Float = Field(0.1, gt=0, description="initial learning rate")
    momentum: Float = Field(0.9, ge=0, lt=1, description="momentum of SGD")
    weight_decay: Float = Field(0.0, ge=0, description="weight decay of SGD")
    nestorov: bool = Field(False, description="Nesterov momentum (spelt as published; also: nesterov)")
    accumulate: Count = Field(
        1, description="parts that a process takes its share of a batch in; less memory, the same update"
    )
    sync_bn: bool = Field(
        False,
        description="batch norms take the statistics of a batch over all processes, not over each share",
    )
    amp: Literal["bf16", "fp16"] | None = Field(
        None, description="calculate with 16 bits where it is safe; weights and selection stay float32"
    )
    lr_scheduler: Annotated[str, _known_or_path(KNOWN_SCHEDULERS)] = Field(
        "multistep", description="learning rate as a function of the step"
    )
    multistep_lr_milestones: Annotated[list[Count], BeforeValidator(_as_list)] = Field(
        [80, 120], description="multistep: epochs before which the rate is lowered"
    )
    multistep_lr_gamma: Float = Field(0.1, gt=0, le=1, description="multistep: factor of each milestone")
    callbacks: Annotated[list[ClassPath], BeforeValidator(_as_list)] = Field(
        [], description="classes of your own, as module:Class, that are called at the events of a training"
    )
    exp_decaying_lr_gamma: Float = Field(0.97, gt=0, le=1, description="exp_decaying: factor of each epoch")


class EvaluationKeys(BaseModel):
    """evaluation"""

    evaluate: bool = Field(False, description="evaluate the checkpoint of --resume; train nothing")
    test_batch_size: Count | None = Field(None, description="images of an evaluation batch; else batch_size")
    topk: Annotated[list[Count], BeforeValidator(_as_list)] = Field(
        [1, 5], min_length=1, description="which top-k accuracies are reported"
    )
    fast_eval: bool = Field(False, description="evaluate without dead neurons")
    engine: Literal["auto", "native", "dense", "csr", "triton", "dgl"] = Field(
        "auto",
        description="with fast_eval: what runs the wiring; auto: what is fastest",
    )
    export: str | None = Field(
        None,
        pattern=r"[^/]\.(onnx|pt2|safetensors)$",
        description="write the network of --resume to this file, compacted if possible; train nothing",
        json_schema_extra={"choices": ["FILE.onnx", "FILE.pt2", "FILE.safetensors"]},
    )
    bf16: bool = Field(
        False,
        description="with fast_eval: 16 bits for the native engine's classifier weights (logits to 1e-3) or "
        "Triton's maps (to 1e-2)",
    )
    use_dgl: bool = Field(False, description="with fast_eval: run the wiring as a DGL graph (engine: dgl)")
    skip_profiling: bool = Field(
        False, description="do not show what each layer costs before and after training"
    )


class FileKeys(BaseModel):
    """files and reports"""

    data_dir: PathText = Field("./datasets", description="folder of the data sets; else $DATA_DIR")
    save_dir: PathText = Field("./checkpoints", description="checkpoints go to <save_dir>/<name>/")
    log_dir: PathText = Field("./runs", description="logs and results go to <log_dir>/<name and start>/")
    resume: PathText | None = Field(
        None, description="checkpoint to go on from; auto: this experiment's last.pt"
    )
    log_interval: Count = Field(50, description="training steps between two log lines")
    checkpoint_interval: Count = Field(10, description="epochs between two epoch_N.pt")
    checkpoint_interval_steps: Count | None = Field(
        None,
        description="training steps between two last.pt within an epoch; one is written after each epoch",
    )
    keep_last: Count | None = Field(None, description="how many epoch_N.pt are kept; default: all")
    record_wiring: bool = Field(
        False, description="record edges, weights and live nodes in wiring.npz, for the pictures of fig"
    )
    record_interval: Count | None = Field(
        None,
        description="record_wiring: training steps between two states; default: after 1, 2, 4, 8, … steps of "
        "the first epoch; one is taken after each epoch in any case",
    )


class MachineKeys(BaseModel):
    """machine"""

    gpus: Annotated[list[Annotated[Int, Field(ge=0)]], BeforeValidator(_as_list)] | None = Field(
        None,
        description="CUDA devices to use, one process each; no number: CPU; default: the first device, if "
        "there is one",
    )
    processes: Annotated[Count, Field(le=1024)] | None = Field(
        None, description="training processes on the CPU, instead of GPUs; a batch is shared among them"
    )
    threads: Annotated[Int, Field(ge=1, le=1024)] | Literal["auto"] = Field(
        "auto",
        description="CPU threads of each process; auto: $OMP_NUM_THREADS, else one where a step is small and "
        "one for each core where it is not",
    )
    max_restarts: Annotated[Int, Field(ge=0)] = Field(
        0, description="how often a run is started anew from last.pt when one of its processes is lost"
    )
    timeout: Float = Field(
        600.0,
        gt=0,
        le=10_000_000,
        description="seconds after which a process that does not answer the others counts as lost",
    )
    workers: Annotated[Int, Field(ge=0, le=1024)] | Literal["auto"] = Field(
        8,
        description="loading processes of a machine, for data sets that do not fit into memory; auto: one "
        "for each CPU",
    )
    compile: bool = Field(
        False, description="run the network by torch.compile; on the CPU this needs a C++ compiler"
    )
    cuda_graph: bool = Field(
        False,
        description="run training steps as one CUDA graph, without Python between their kernels; the network "
        "must do the same in each step",
    )
    deterministic: bool = Field(
        False, description="refuse operations whose results differ from run to run on a GPU"
    )
    skip_corrupt: bool = Field(
        False, description="images that cannot be read are named, counted and left out; else they end the run"
    )


GROUPS: tuple[type[BaseModel], ...] = (
    ExperimentKeys,
    WiringKeys,
    NetworkKeys,
    TrainingKeys,
    EvaluationKeys,
    FileKeys,
    MachineKeys,
)


class Config(MachineKeys, FileKeys, EvaluationKeys, TrainingKeys, NetworkKeys, WiringKeys, ExperimentKeys):
    """One experiment, resolved: every key has its value. It cannot be changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
    _overrides: dict[str, Any] = PrivateAttr(default_factory=dict)
    _own: set[str] = PrivateAttr(default_factory=set)

    @property
    def overrides(self) -> dict[str, Any]:
        """The keys that the command line set, with their values."""
        return {key: getattr(self, key) for key in self._overrides}

    def explicit(self) -> set[str]:
        """The keys that the file itself (not its bases) or the command line set to other than the default."""
        defaults = {key: field.get_default(call_default_factory=True) for key, field in schema().items()}
        return {key for key in self._own if getattr(self, key, None) != defaults.get(key)}


def canonical(key: str) -> str:
    """The schema's spelling of a key: `-` and `_` are the same, aliases are resolved."""
    key = key.replace("-", "_")
    return ALIASES.get(key, key)


def schema() -> dict[str, Any]:
    """Field definitions by key, in the order of the groups."""
    return {key: field for group in GROUPS for key, field in group.model_fields.items()}
