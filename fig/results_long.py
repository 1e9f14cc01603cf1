"""Long trainings with every edge rule at equal budgets; writes docs/results_long.md and its pictures.

    python -m fig.results_long [--folder DIR] [--parts digits a b c d] [--seeds N ...] [--only TEXT]
                               [--page_only] [--output FILE] [OPTION ...]

`make results-long` does so. It takes days on two cores, and may be stopped at any time: finished runs are not
repeated, others are resumed. The first seed of all experiments is trained before the second. `--page_only`
trains nothing: the page shows the runs that are finished, and names the others. Other options are passed to
all trainings.

digits: the static graph with every rule, 8 epochs. a: the same on Fashion-MNIST, 160 epochs. b: the graph in
discrete time. c: the MobileNet graph. d: ResNet-18.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from fig.output_files import write_text
from fig.pareto import draw_measured
from fig.result_runs import Experiment
from fig.results import FASHION, every_rule_on_digits, rule_options
from fig.results_page import Measured, page
from fig.style import pyplot_in_style, save
from fig.train_app import ROOT
from genutil.exceptions import UserError
from genutil.exit_codes import exit_status
from wirings.rules import RULES

MOBILENET = "apps/medium_scale/mobilenetv1_dnw_x225.yml"
DENSE_MOBILENET = "apps/medium_scale/mobilenetv1_x25.yml"
RESNET = "apps/quickstart/fashion_mnist_resnet18_dnw.yml"
_READABLE = ("--edge_scope", "readable")


@dataclasses.dataclass(frozen=True)
class Part:
    """Experiments that are compared with each other.

    Attributes:
        title: of the section.
        seeds: of each experiment.
        experiments: in the order of the page.
    """

    title: str
    seeds: tuple[int, ...]
    experiments: tuple[Experiment, ...]


def parts() -> dict[str, Part]:
    """The parts by their names."""
    return {
        "digits": Part(
            "Static graph, 32,000 edges; digits, 8 epochs", (0, 1, 2), tuple(every_rule_on_digits())
        ),
        "a": Part(
            "Static graph, 32,000 edges; Fashion-MNIST, the first 5,000 images, 160 epochs",
            (0, 1, 2),
            _of_rules("static", FASHION, _fashion(5000, 160), _static_rules()),
        ),
        "b": Part(
            "Discrete time, 32,000 edges; Fashion-MNIST, the first 5,000 images, 160 epochs",
            (0, 1, 2),
            _of_rules(
                "discrete",
                FASHION,
                (
                    *("--model", "models.graphs.neuralgraph:DiscreteTimeNeuralGraph"),
                    *("--setting", "discrete_time", *_fashion(5000, 160)),
                ),
                {"dnw": (), "random": ("--graph", "random")},
            ),
        ),
        "c": Part(
            "MobileNet graph ×0.225; Fashion-MNIST, the first 10,000 images, 30 epochs",
            (0, 1),
            (
                *_of_rules("mobilenet_x225", MOBILENET, _as_fashion(10_000, 30), _mobilenet_rules()),
                Experiment("mobilenet_x25_dense", DENSE_MOBILENET, _as_fashion(10_000, 30)),
            ),
        ),
        "d": Part(
            "ResNet-18; Fashion-MNIST, the first 10,000 images, 10 epochs",
            (0, 1),
            tuple(
                Experiment(
                    f"resnet18_{rule}_{100 - percent}_{budget}",
                    RESNET,
                    (
                        *("--graph", rule, "--prune_rate", f"0.{percent}", "--budget", budget),
                        *_fashion(10_000, 10),
                    ),
                )
                for percent in (90, 95)
                for budget in ("uniform", "erk")
                for rule in ("dnw", "random")
            ),
        ),
    }


def _fashion(images: int, epochs: int) -> tuple[str, ...]:
    return *("--num_epochs", str(epochs), "--validate_every", "5"), *("--data_args", f"num_images={images}")


def _as_fashion(images: int, epochs: int) -> tuple[str, ...]:
    """Options that make Fashion-MNIST the data of an experiment on CIFAR-10."""
    channels = ("--in_channels", "1", "--workers", "0")
    return "--data", "data.fashion_mnist:FashionMNIST", *channels, *_fashion(images, epochs)


def _of_rules(
    network: str, app: str, options: Sequence[str], rules: Mapping[str, Sequence[str]]
) -> tuple[Experiment, ...]:
    return tuple(Experiment(f"{network}_{name}", app, (*options, *own)) for name, own in rules.items())


def _static_rules() -> dict[str, tuple[str, ...]]:
    """Options of each rule. First as published, then with edges alone that the forward pass reads."""
    readable = {
        f"{rule}_readable" if rule in ("dnw", "random") else rule: rule_options(rule)
        for rule in RULES
        if rule not in ("complete", "fine_tune", "td", "reg_td")
    }
    cures = {
        "dnw_cubic": ("--graph", "dnw", *_READABLE, "--density_schedule", "cubic"),
        "dnw_warmup": ("--graph", "dnw", *_READABLE, "--warmup", "5"),
        "sr_ste_cubic": ("--graph", "sr_ste", *_READABLE, "--density_schedule", "cubic"),
    }
    return {
        "dnw": ("--graph", "dnw"),
        "random": ("--graph", "random"),
        "complete": ("--graph", "complete"),
        **readable,
        **cures,
        "td": ("--graph", "td", "--rho", "0.95"),
    }


def _mobilenet_rules() -> dict[str, tuple[str, ...]]:
    return {rule: ("--graph", rule) for rule in ("dnw", "random")} | {
        rule: rule_options(rule) for rule in ("st3", "rigl")
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status of the first training that fails, 2 if the page cannot be written,
    or 0.
    """
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--folder", type=Path, default=Path("results_long"), help="of the runs")
    parser.add_argument("--parts", nargs="+", choices=list(parts()), default=list(parts()))
    parser.add_argument("--seeds", type=int, nargs="+", help="by default those of each part")
    parser.add_argument("--only", default="", help="only experiments with this text in their names")
    parser.add_argument("--page_only", action="store_true", help="train nothing")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results_long.md", help="the page")
    command = f"python -m fig.results_long {shlex.join(argv)}" if argv else "make results-long"
    return exit_status(lambda: _main(*parser.parse_known_args(argv), command))


def _main(options: argparse.Namespace, extra_options: Sequence[str], command_line: str) -> int:
    selected = {
        name: dataclasses.replace(
            part,
            seeds=tuple(options.seeds or part.seeds),
            experiments=tuple(one for one in part.experiments if options.only in one.name),
        )
        for name, part in parts().items()
        if name in options.parts
    }
    if not any(part.experiments for part in selected.values()):
        raise UserError(f"--only: no experiment has {options.only} in its name")
    folder = options.folder.resolve()
    if not options.page_only:
        status = _train(list(selected.values()), folder, extra_options)
        if status:
            return status
    measured: dict[str, list[Measured]] = {}
    missing = []
    for name, part in selected.items():
        for experiment in part.experiments:
            finished = experiment.finished(folder, part.seeds, extra_options)
            missing += [f"{experiment.name} (seed {seed})" for seed in part.seeds if seed not in finished]
            if finished:
                command = experiment.command(Path("results_long"), list(finished), extra_options)
                row = Measured(
                    experiment.name, "python " + " ".join(command), list(finished.values()), part.title
                )
                measured.setdefault(name, []).append(row)
    if not measured:
        raise UserError(f"{folder}: holds no finished run of these experiments")
    _write(options.output, measured, missing, command_line)
    print(f"written: {options.output}")
    return 0


def _write(
    path: Path, measured: Mapping[str, Sequence[Measured]], missing: Sequence[str], command_line: str
) -> None:
    """Write the page, and next to it a picture for each part."""
    everything = [experiment for part in measured.values() for experiment in part]
    text = page(everything, command_line, "Rules have their default options.")
    with pyplot_in_style() as pyplot:
        for name, experiments in measured.items():
            picture = path.with_name(f"{path.stem}_{name}")
            results = [result for experiment in experiments for result in experiment.results]
            save(draw_measured(pyplot, results), picture)
            heading = f"\n## {experiments[0].section}\n"
            text = text.replace(heading, f"{heading}\n![accuracy by cost]({picture.name}.png)\n")
    if missing:
        text += f"\n## Not measured yet\n\n{', '.join(missing)}.\n"
    write_text(path, text)


def _train(selected: Sequence[Part], folder: Path, extra_options: Sequence[str]) -> int:
    """Train all experiments, one seed after the other. Returns the exit status of the first that fails."""
    for number in range(max(len(part.seeds) for part in selected)):
        for part in selected:
            for experiment in part.experiments:
                seeds = part.seeds[number : number + 1]
                status = experiment.train(folder, seeds, extra_options) if seeds else 0
                if status:
                    return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
