"""The command `wirings`: profile, compact or export a network whose weights are in a file.

    wirings profile weights.pt --model torchvision.models:resnet18 --shape 3 224 224
    wirings compact weights.pt --model mine:Net --model-args classes=10 --shape 3 32 32 --output small.pt2
    wirings export weights.safetensors --model mine:Net --rule dnw --density 0.05 --output net.onnx

torch is imported when a command runs, so that `--help` is fast.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wirings.errors import UnknownNameError, WiringError, first_line
from wirings.names import import_object

if TYPE_CHECKING:
    from torch import nn

_WIRING = ("rule", "density", "budget", "include", "exclude", "option")
"""Options that make the command wire the network."""
_CONSTANTS = {"true": True, "false": False, "none": None, "null": None}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status: 2 after a mistake of the user, with one message.

    Args:
        argv: the arguments; None: those of the process.
    """
    options = make_parser().parse_args(argv)
    try:
        with _importable_current_folder(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's warnings are for programmers
            options.run(options)
    except WiringError as error:
        print(f"wirings: {error}", file=sys.stderr)
        return 2
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The options of all commands."""
    parser = argparse.ArgumentParser(prog="wirings", description="Networks with sparse weights, from files.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    profile = _add(commands, "profile", _profile, "weights in use and MACs of each layer, as a table")
    compact = _add(commands, "compact", _compact, "write the network without dead channels, for torch alone")
    export = _add(commands, "export", _export, "write the network without dead channels, for other programs")
    compact.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="FILE.pt2",
        help="a program of torch.export: torch.export.load(FILE).module()(images)",
    )
    export.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="FILE",
        help="ends in .onnx, .pt2 or .safetensors (the edges of a MobileNet graph)",
    )
    for command in (profile, compact, export):
        _add_common(command)
    return parser


def _add(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    command.set_defaults(run=run)
    return command


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="weights: a state dict, or one under `model` or `state_dict`; .pt, .pth or "
        ".safetensors. Nothing in it is executed",
    )
    command.add_argument(
        "--model",
        required=True,
        metavar="MODULE:CALLABLE",
        help="makes the network; imported from the current folder or the environment",
    )
    command.add_argument(
        "--model-args",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="arguments of the callable; a value is a Python literal or text",
    )
    command.add_argument(
        "--shape",
        nargs=3,
        type=_size,
        metavar=("C", "H", "W"),
        help="channels, height and width of an image; default: those of the network, if known",
    )
    group = command.add_argument_group(
        "wiring",
        "wire the network before the weights are loaded, by wirings.wire. Without these options, and if the "
        "network is not wired already, the weights other than zero are the edges in use.",
    )
    group.add_argument("--rule", help="name of an edge rule, or MODULE:CLASS (default: dnw)")
    group.add_argument("--density", type=float, help="fraction of the weights in use (default: 0.1)")
    group.add_argument(
        "--budget",
        nargs="+",
        help="edges of each layer: a name, MODULE:FUNCTION, or PATTERN=DENSITY ... (default: uniform)",
    )
    group.add_argument("--include", nargs="+", action="extend", metavar="PATTERN", help="layers to wire")
    group.add_argument(
        "--exclude", nargs="+", action="extend", metavar="PATTERN", help="layers that stay dense"
    )
    group.add_argument("--option", nargs="+", action="extend", metavar="NAME=VALUE", help="of the rule")


def _size(text: str) -> int:
    size = int(text)
    if size < 1:
        raise ValueError
    return size


def _profile(options: argparse.Namespace) -> None:
    from wirings.profiling import as_table, profile
    from wirings.pruned import wire_nonzero

    model = _load(options)
    wire_nonzero(model)
    channels, *size = _shape(options, model)
    print(as_table(profile(model, (size[0], size[1]), channels)))


def _compact(options: argparse.Namespace) -> None:
    _write(options, (".pt2",))


def _export(options: argparse.Namespace) -> None:
    from wirings.exporting import ENDINGS

    _write(options, ENDINGS)


def _write(options: argparse.Namespace, endings: Sequence[str]) -> None:
    from wirings.exporting import check_ending, export, smaller_network, write_network
    from wirings.structure import num_parameters

    output: Path = options.output
    check_ending(output, endings)
    if output.exists() and options.file.exists() and output.samefile(options.file):
        raise WiringError(f"--output: {output} is the file of the weights; name another one")
    model = _load(options)
    shape = _shape(options, model)
    try:
        if output.suffix == ".safetensors":
            print(export(model, output, shape))
            return
        small, report = smaller_network(model, shape)
        before = num_parameters(model)
        print(report or f"Parameters: {before:,} before, {num_parameters(small):,} after.")
        print(write_network(small, report, output, shape))
    except OSError as error:
        raise WiringError(f"--output: {output} cannot be written: {error.strerror or error}") from error


def _shape(options: argparse.Namespace, model: nn.Module) -> Sequence[int]:
    from wirings.images import image_shape

    shape: Sequence[int] | None = options.shape or image_shape(model)
    if shape is None:
        raise WiringError(
            f"{type(model).__name__} has no image_size; give the shape of its images: --shape C H W"
        )
    return shape


def _load(options: argparse.Namespace) -> nn.Module:
    """The network with the weights of the file, in evaluation mode; wired if the options say so."""
    from wirings.weights_file import find_weights, match_and_load_weights, read_content

    weights, key = find_weights(read_content(options.file), options.file)
    model = _make(options)
    if any(getattr(options, name) is not None for name in _WIRING):
        _wire(options, model)
    match_and_load_weights(model, weights, options.file, key)
    return model.eval()


def _make(options: argparse.Namespace) -> nn.Module:
    from torch import nn

    maker = _imported("--model", options.model)
    arguments = _pairs("--model-args", options.model_args)
    if not callable(maker):
        raise WiringError(f"--model: {options.model} cannot be called")
    try:
        model = maker(**arguments)
    except (Exception, SystemExit) as error:  # code of the user's may raise anything
        raise WiringError(
            f"--model: {options.model} raised {type(error).__name__}: {first_line(error)}"
        ) from error
    if not isinstance(model, nn.Module):
        raise WiringError(f"--model: {options.model} returned {type(model).__name__}, not a torch.nn.Module")
    return model


def _wire(options: argparse.Namespace, model: nn.Module) -> None:
    from wirings.layers import WiredLayer
    from wirings.wiring import wire

    if any(isinstance(module, WiredLayer) for module in model.modules()):
        names = ", ".join(f"--{name}" for name in _WIRING)
        raise WiringError(f"{options.model} returns a network that is wired already; remove {names}")
    rule, budget = options.rule, _budget(options.budget)
    if rule is not None and ":" in rule:
        rule = _imported("--rule", rule)
    settings = {"rule": rule, "density": options.density, "budget": budget}
    wire(
        model,
        **{name: value for name, value in settings.items() if value is not None},
        include=options.include,
        exclude=options.exclude,
        **_pairs("--option", options.option or []),
    )


def _budget(words: Sequence[str] | None) -> Any:
    if words is None:
        return None
    if len(words) > 1 or "=" in words[0]:
        densities = _pairs("--budget", words)
        wrong = [name for name, value in densities.items() if type(value) not in (int, float)]
        if wrong:
            raise WiringError(
                f"--budget: the density of {wrong[0]} is not a number but {densities[wrong[0]]}"
            )
        return densities
    return _imported("--budget", words[0]) if ":" in words[0] else words[0]


def _imported(option: str, path: str) -> Any:
    try:
        return import_object(path)
    except UnknownNameError as error:
        raise WiringError(f"{option}: {error}") from error
    except (Exception, SystemExit) as error:  # code of the user's may raise anything
        raise WiringError(
            f"{option}: importing {path} raised {type(error).__name__}: {first_line(error)}"
        ) from error


def _pairs(option: str, words: Sequence[str]) -> dict[str, Any]:
    """The words `name=value` as a mapping."""
    pairs = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise WiringError(f"{option}: {word} has not the form name=value")
        if name in pairs:
            raise WiringError(f"{option}: {name} is set twice; remove one")
        pairs[name] = _value(value)
    return pairs


def _value(text: str) -> Any:
    """A Python literal, or text."""
    if text.lower() in _CONSTANTS:
        return _CONSTANTS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


@contextlib.contextmanager
def _importable_current_folder() -> Iterator[None]:
    """Context in which modules of the current folder can be imported, as with `python -m`."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)
