"""Every key of an experiment: its type, range, default and meaning, once.

A group of keys is one class; its docstring is the heading that `--help` shows. Field descriptions are the
help text. Nothing else in the project repeats a default.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr

from genutil.config.registries import ADAPTIVE_SOLVERS, FIXED_STEP_SOLVERS, LR_SCHEDULES, OPTIMIZERS
from genutil.experiment_name import checked_name
from wirings.budgets import BUDGETS, GLOBAL
from wirings.engines import ENGINES
from wirings.rules import RULES

ALIASES = {"nesterov": "nestorov", "random_seed": "seed"}
NEVER_READ = ("val_resize", "prune")
"""Keys of published files that have no effect."""

_CLASS_PATH = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"


def _refuse_bool(value: Any) -> Any:
    """YAML's `yes` is not a number, though Python treats it as 1."""
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


def _known_or_path(known: Iterable[str]) -> Any:
    pattern = "^(" + "|".join(known) + ")$|" + _CLASS_PATH
    return Field(pattern=pattern, json_schema_extra={"choices": [*known, "module:Name"]})


def _one_of(known: Iterable[str]) -> Any:
    return Field(pattern="^(" + "|".join(known) + ")$", json_schema_extra={"choices": [*known]})


Int = Annotated[int, BeforeValidator(_refuse_bool), AfterValidator(_within_64_bits)]
Float = Annotated[float, BeforeValidator(_refuse_bool), Field(allow_inf_nan=False)]
ClassPath = Annotated[str, Field(pattern=_CLASS_PATH, json_schema_extra={"choices": ["module:Class"]})]
PathText = Annotated[str, AfterValidator(_is_path)]
Count = Annotated[Int, Field(ge=1)]
Fraction = Annotated[Float, Field(ge=0, le=1)]


Role = Literal["result", "order", "evaluation", "files", "execution"]
"""What a key decides: the result of a training (`result`); the same through the images of each batch and the
random numbers (`order`); how a trained network is evaluated; where files and reports go; how the run is
executed, which changes no more than rounding."""


def key(role: Role, default: Any = ..., *, read_by_experiment: bool = False, **settings: Any) -> Any:
    """A pydantic field with a role.

    Args:
        role: what the key decides.
        default: of the key; without one it is required.
        read_by_experiment: the experiment itself reads the key. Others are arguments of the network, the data
            set and the like, and one that none of them takes has no effect.
        settings: arguments of pydantic's `Field`.
    """
    extra = {**settings.pop("json_schema_extra", {}), "role": role, "read_by_experiment": read_by_experiment}
    return Field(default, json_schema_extra=extra, **settings)


class ExperimentKeys(BaseModel):
    """experiment"""

    name: Annotated[str, AfterValidator(checked_name)] | None = key(
        "files",
        None,
        description="name of the experiment, any printable text; its folders have this name, or a safe "
        "form of it; default: the file's name",
    )
    model: ClassPath = key("result", description="the network, as module:Class")
    data: ClassPath = key("order", description="the data set, as module:Class")
    model_args: dict[str, Any] = key("result", {}, description="arguments of a model class of your own")
    data_args: dict[str, Any] = key("order", {}, description="arguments of a data class of your own")
    seed: Int = key(
        "order", 0, ge=0, description="seed of weights, wiring, order and crops (also: random_seed)"
    )
    seeds: Annotated[list[Annotated[Int, Field(ge=0)]], BeforeValidator(_as_list)] | None = key(
        "execution",
        None,
        description="run the experiment once for each of these seeds; finished ones are skipped",
    )


class WiringKeys(BaseModel):
    """wiring"""

    graph: Annotated[str, _known_or_path(tuple(RULES))] = key(
        "result",
        "dnw",
        read_by_experiment=True,
        description="edge rule: how the edges in use are chosen, or module:Class",
    )
    graph_args: dict[str, Any] = key("result", {}, description="further arguments of the edge rule")
    prune_rate: Float = key(
        "result",
        0.0,
        ge=0,
        le=1,
        description="fraction of a layer's edges that is not used in the forward pass",
    )
    budget: Annotated[str, _known_or_path((*BUDGETS, GLOBAL))] | dict[str, Fraction] | None = key(
        "result",
        None,
        read_by_experiment=True,
        description="how many edges each layer gets: uniform, erk, global (one ranking of all layers), "
        "mobilenet_width (the published numbers), a mapping of patterns of layer names to densities, or "
        "module:function; default: as published",
        json_schema_extra={"choices": [*BUDGETS, GLOBAL, "PATTERN=DENSITY ...", "module:function"]},
    )
    density_schedule: Literal["constant", "cubic", "steps", "cyclic"] | None = key(
        "result",
        None,
        read_by_experiment=True,
        description="number of edges in use during the training, ending at that of the budget; default: that "
        "of the rule's publication, else constant",
    )
    density_schedule_args: dict[str, Any] = key(
        "result",
        {},
        read_by_experiment=True,
        description="arguments of density_schedule: first_density, start and end (fractions of the "
        "training), drops (steps), cycles (cyclic)",
    )
    setting: Literal["static", "discrete_time", "continuous"] = key(
        "result",
        "static",
        description="has an effect only with graph random: static draws the pattern of an acyclic graph, the "
        "others any pattern (how a graph is executed depends on the class of model)",
    )
    edge_scope: Literal["all", "readable"] = key(
        "result",
        "all",
        description="choose among all entries of a graph's matrix (as published), or among those that the "
        "forward pass reads",
    )
    rho: Annotated[Float, Field(ge=0, le=1)] | Literal["gamma"] | None = key(
        "result",
        None,
        description="td, reg_td: probability of dropping a weak edge in training; gamma = the prune rate",
    )
    td_magnitude: bool = key(
        "result",
        False,
        description="td, reg_td: use magnitudes without their signs, as the published code did",
    )
    use_graph: PathText | None = key(
        "result",
        None,
        read_by_experiment=True,
        description="initial weights (and, for fixed rules, the wiring) from this checkpoint",
    )
    use_init: PathText | None = key(
        "result",
        None,
        read_by_experiment=True,
        description="checkpoint whose weights are loaded (with use_graph)",
    )


class NetworkKeys(BaseModel):
    """network"""

    in_channels: Count = key("result", 3, description="channels of an image")
    image_size: Count = key("result", 32, description="height and width of an image, in pixels")
    output_size: Count = key("result", 10, description="number of classes")
    dim: Count = key("result", 800, description="tiny graphs: nodes")
    downsample_dim: Count = key("result", 32, description="tiny graphs: nodes that the stem writes to")
    feature_dim: Count = key("result", 100, description="tiny graphs: output nodes, read by the classifier")
    layers: Count = key(
        "result",
        5,
        le=10_000,
        description="tiny graphs: groups of nodes of a static graph, steps of a discrete one",
    )
    width_mult: Float = key("result", 1.0, gt=0, description="dense MobileNet: width multiplier")
    small: bool = key("result", False, description="MobileNet graph: the classifier is wired, too")
    ode_solver: Annotated[str, _one_of((*ADAPTIVE_SOLVERS, *FIXED_STEP_SOLVERS))] = key(
        "result", "dopri5", description="continuous time: solver; the last three take steps of equal size"
    )
    ode_rtol: Float = key("result", 1e-3, gt=0, description="continuous time: relative tolerance of a step")
    ode_atol: Float = key("result", 1e-3, gt=0, description="continuous time: absolute tolerance of a step")
    ode_steps: Annotated[Count, Field(le=100_000)] | None = key(
        "result", None, description="continuous time: steps of euler, midpoint and rk4; else 10"
    )
    ode_adjoint: bool = key(
        "result",
        False,
        description="continuous time: solve a second equation for the gradient, which takes less memory, "
        "more time, and is exact within the tolerance only",
    )


class TrainingKeys(BaseModel):
    """training"""

    batch_size: Count = key("order", 128, description="images of a training step, over all devices")
    num_epochs: Count = key("result", 160, description="passes over the training images")
    start_epoch: Annotated[Int, Field(ge=0)] = key(
        "result",
        0,
        read_by_experiment=True,
        description="first epoch, from 0, of a training that is not resumed from a checkpoint",
    )
    max_batches: Count | None = key(
        "result",
        None,
        read_by_experiment=True,
        description="only the first batches of each epoch and of each validation; default: all",
    )
    validation: bool = key("result", True, read_by_experiment=True, description="validate after each epoch")
    validate_every: Count = key(
        "evaluation",
        1,
        read_by_experiment=True,
        description="validate after every N epochs, and after the last; best.pt is chosen among these epochs",
    )
    optimizer: Annotated[str, _known_or_path(OPTIMIZERS)] = key(
        "result",
        "sgd",
        read_by_experiment=True,
        description="sgd, or module:function that makes an optimizer",
    )
    lr: Float = key("result", 0.1, gt=0, description="initial learning rate")
    momentum: Float = key("result", 0.9, ge=0, lt=1, description="momentum of SGD")
    weight_decay: Float = key("result", 0.0, ge=0, description="weight decay of SGD")
    nestorov: bool = key(
        "result", False, description="Nesterov momentum (spelt as published; also: nesterov)"
    )
    norm_weight_decay: bool = key(
        "result", True, read_by_experiment=True, description="weight decay on batch norms, too"
    )
    label_smoothing: Float = key(
        "result",
        0.0,
        ge=0,
        lt=1,
        read_by_experiment=True,
        description="fraction of a label that is spread evenly over all classes",
    )
    mixup: Float = key(
        "result",
        0.0,
        ge=0,
        read_by_experiment=True,
        description="mix pairs of images, in proportions drawn from Beta(mixup, mixup); 0: none",
    )
    accumulate: Count = key(
        "result",
        1,
        description="microbatches of a process's share of a batch: less memory, the same update",
    )
    sync_bn: bool = key(
        "result",
        False,
        description="on GPUs: batch norms use the statistics of the whole batch, not of each process's shard",
    )
    amp: Literal["bf16", "fp16"] | None = key(
        "result",
        None,
        read_by_experiment=True,
        description="compute in 16 bits where it is safe; weights and selection stay float32",
    )
    loss_scale: Float | None = key(
        "result",
        None,
        gt=0,
        read_by_experiment=True,
        description="amp fp16: fixed factor of the loss; default: one that follows the gradients",
    )
    lr_scheduler: Annotated[str, _known_or_path(LR_SCHEDULES)] = key(
        "result",
        "multistep",
        read_by_experiment=True,
        description="learning rate as a function of the step; epoch_cosine and epoch_linear are constant "
        "within an epoch",
    )
    warmup: Annotated[Int, Field(ge=0)] = key(
        "result",
        0,
        read_by_experiment=True,
        description="first epochs, in which the learning rate rises to lr in equal steps",
    )
    multistep_lr_milestones: Annotated[list[Count], BeforeValidator(_as_list)] = key(
        "result", [80, 120], description="multistep: epochs before which the rate is lowered"
    )
    multistep_lr_gamma: Float = key(
        "result", 0.1, gt=0, le=1, description="multistep: factor of each milestone"
    )
    callbacks: Annotated[list[ClassPath], BeforeValidator(_as_list)] = key(
        "result",
        [],
        read_by_experiment=True,
        description="callback classes of your own, as module:Class",
    )
    exp_decaying_lr_gamma: Float = key(
        "result", 0.97, gt=0, le=1, description="exp_decaying: factor of each epoch"
    )


class EvaluationKeys(BaseModel):
    """evaluation"""

    evaluate: bool = key(
        "evaluation",
        False,
        read_by_experiment=True,
        description="evaluate the checkpoint of --resume; train nothing",
    )
    test_batch_size: Count | None = key(
        "evaluation", None, description="images of an evaluation batch; else batch_size"
    )
    topk: Annotated[list[Count], BeforeValidator(_as_list)] = key(
        "result",
        [1, 5],
        min_length=1,
        read_by_experiment=True,
        description="which top-k accuracies are reported",
    )
    fast_eval: bool = key(
        "evaluation", False, read_by_experiment=True, description="evaluate without dead nodes and channels"
    )
    engine: Annotated[str, _one_of(ENGINES)] = key(
        "evaluation",
        "auto",
        read_by_experiment=True,
        description="with fast_eval: engine that executes the wiring; auto: the fastest",
    )
    export: str | None = key(
        "evaluation",
        None,
        pattern=r"[^/]\.(onnx|pt2|safetensors|wiring)$",
        read_by_experiment=True,
        description="write the network of --resume to this file, compacted if possible; train nothing",
        json_schema_extra={"choices": ["FILE.onnx", "FILE.pt2", "FILE.safetensors", "FILE.wiring"]},
    )
    bf16: bool = key(
        "evaluation",
        False,
        read_by_experiment=True,
        description="with fast_eval: 16 bits for the native engine's classifier weights (logits to 1e-3) or "
        "Triton's maps (to 1e-2)",
    )
    use_dgl: bool = key(
        "evaluation",
        False,
        description="with fast_eval: execute the wiring as a DGL graph (same as engine: dgl)",
    )
    skip_profiling: bool = key(
        "files",
        False,
        read_by_experiment=True,
        description="do not print the cost of each layer before and after training",
    )


class FileKeys(BaseModel):
    """files and reports"""

    data_dir: PathText = key("files", "./datasets", description="folder of the data sets; else $DATA_DIR")
    save_dir: PathText = key("files", "./checkpoints", description="checkpoints go to <save_dir>/<name>/")
    checkpoint_dir: PathText | None = key(
        "files", None, description="folder of the checkpoints themselves, in place of <save_dir>/<name>/"
    )
    checkpoint_format: Literal["graph", "resnet"] = key(
        "files",
        "graph",
        description="names and keys of checkpoint files: of the published graph networks (init.pt, last.pt, "
        "best.pt, epoch_N.pt; model) or ResNets (checkpoint.pth.tar, model_best.pth.tar, "
        "checkpoint-N.pth.tar; state_dict); both are read",
    )
    save_checkpoints: bool = key("files", True, description="write checkpoints")
    log_dir: PathText = key(
        "files", "./runs", description="logs and results go to <log_dir>/<name and start>/"
    )
    resume: PathText | None = key(
        "files", None, description="checkpoint to resume from; auto: the last one of this experiment"
    )
    log_interval: Count = key("files", 50, description="training steps between two log lines")
    checkpoint_interval: Count | None = key(
        "files", 10, description="epochs between two checkpoints that are kept; none: no such files"
    )
    checkpoint_interval_steps: Count | None = key(
        "files",
        None,
        description="training steps between two writings of the last checkpoint within an epoch; it is also "
        "written after each epoch",
    )
    keep_last: Count | None = key(
        "files", None, description="number of epoch_N.pt files kept, the latest ones; default: all"
    )
    record_wiring: bool = key(
        "files",
        False,
        description="record edges, weights and live nodes in wiring/, for the pictures of fig",
    )
    record_interval: Count | None = key(
        "files",
        None,
        description="record_wiring: training steps between two states; default: after 1, 2, 4, 8, … steps of "
        "the first epoch; one is taken after each epoch in any case",
    )


class MachineKeys(BaseModel):
    """machine"""

    gpus: Annotated[list[Annotated[Int, Field(ge=0)]], BeforeValidator(_as_list)] | None = key(
        "execution",
        None,
        description="CUDA devices to use, one process each; no number: CPU; default: the first device, if "
        "there is one",
    )
    processes: Annotated[Count, Field(le=1024)] | None = key(
        "execution",
        None,
        description="training processes on the CPU, instead of GPUs; they split each batch",
    )
    threads: Annotated[Int, Field(ge=1, le=1024)] | Literal["auto"] = key(
        "execution",
        "auto",
        description="CPU threads of each process; auto: $OMP_NUM_THREADS, else one where a step is small and "
        "one for each core where it is not",
    )
    max_restarts: Annotated[Int, Field(ge=0)] = key(
        "execution",
        0,
        description="how often a run is restarted from its last checkpoint when one of its processes is lost",
    )
    timeout: Float = key(
        "execution",
        600.0,
        gt=0,
        le=10_000_000,
        description="seconds after which a process that does not answer counts as lost",
    )
    workers: Annotated[Int, Field(ge=0, le=1024)] | Literal["auto"] = key(
        "execution",
        8,
        description="loading processes of a machine, for data sets that do not fit into memory; auto: one "
        "for each CPU",
    )
    data_backend: Literal["pytorch", "dali-cpu", "dali-gpu"] = key(
        "order",
        "pytorch",
        description="what decodes folders of images: loading processes, or NVIDIA DALI",
    )
    channels_last: bool = key(
        "execution",
        False,
        description="give the network images with channels last in memory, for tensor cores",
    )
    compile: bool = key(
        "execution",
        False,
        description="run the network by torch.compile; on the CPU this needs a C++ compiler",
    )
    cuda_graph: bool = key(
        "execution",
        False,
        description="run training steps as one CUDA graph, without Python between kernels; the network must "
        "do the same operations in each step",
    )
    deterministic: bool = key(
        "execution", False, description="refuse operations that are not deterministic on a GPU"
    )
    skip_corrupt: bool = key(
        "execution",
        False,
        description="skip images that cannot be read, and report them; else one of them is an error",
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


@dataclass(frozen=True)
class KeySources:
    """Sources of the keys of an experiment.

    Attributes:
        own: keys that the command line or the experiment file itself sets, without those of its bases.
        overrides: keys that the command line sets, in its order.
        not_compared: keys that an evaluation does not compare with those of the checkpoint, since the command
            line does not give them.
        options: command-line options by key, where they are not called `--key`.
    """

    own: frozenset[str] = frozenset()
    overrides: tuple[str, ...] = ()
    not_compared: frozenset[str] = frozenset()
    options: Mapping[str, str] = field(default_factory=dict)


class Config(MachineKeys, FileKeys, EvaluationKeys, TrainingKeys, NetworkKeys, WiringKeys, ExperimentKeys):
    """One experiment, resolved: every key has its value. It cannot be changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
    _sources: KeySources = PrivateAttr(default_factory=KeySources)

    @classmethod
    def from_sources(cls, values: Mapping[str, Any], sources: KeySources) -> Config:
        """The experiment of these values.

        Raises:
            pydantic.ValidationError: a value is wrong.
        """
        config = cls.model_validate(values)
        config._sources = sources
        return config

    @property
    def overrides(self) -> dict[str, Any]:
        """The keys that the command line set, with their values."""
        return {key: getattr(self, key) for key in self._sources.overrides}

    @property
    def not_compared(self) -> frozenset[str]:
        """The keys that an evaluation does not compare with those of the checkpoint."""
        return self._sources.not_compared

    def option(self, key: str) -> str:
        """The command-line option that sets a key."""
        return self._sources.options.get(key, f"--{key}")

    def key_with_option(self, key: str) -> str:
        """A key for messages, after the option that sets it if that has another name."""
        option = self.option(key)
        return key if canonical(option.lstrip("-")) == key else f"{option} ({key})"

    def explicit(self) -> set[str]:
        """The keys that the file itself (not its bases) or the command line set to other than the default."""
        defaults = {key: field.get_default(call_default_factory=True) for key, field in schema().items()}
        return {key for key in self._sources.own if getattr(self, key, None) != defaults.get(key)}


def canonical(key: str) -> str:
    """The schema's spelling of a key: `-` and `_` are the same, aliases are resolved."""
    key = key.replace("-", "_")
    return ALIASES.get(key, key)


def keys_of(*roles: Role) -> list[str]:
    """The keys that have one of these roles, in the order of the groups."""
    return [name for name, field in schema().items() if field.json_schema_extra["role"] in roles]


def schema() -> dict[str, Any]:
    """Field definitions by key, in the order of the groups."""
    return {key: field for group in GROUPS for key, field in group.model_fields.items()}
