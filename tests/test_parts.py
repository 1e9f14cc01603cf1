"""The parts that an experiment names: one's own, wrong ones, and settings that none of them asks for."""

import pytest

import runner


def run(path, *argv):
    return runner.main([f"app:{path}", *argv])


def test_settings_without_effect_are_told(write_app, caplog):
    run(write_app(graph="random", edge_scope="readable", width_mult=0.5), "--num_epochs", "1")
    assert "no effect in this experiment: edge_scope, width_mult" in caplog.text


def test_parts_of_one_s_own(write_app, tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "def adam(parameters, lr): return torch.optim.Adam(parameters, lr)\n"
        "def flat(lr): return lambda step: lr\n"
    )
    monkeypatch.chdir(tmp_path)
    assert run(write_app(optimizer="mine:adam", lr_scheduler="mine:flat", lr=0.01)) == 0
    assert run(write_app(optimizer="mine:adamw")) == 2
    assert "optimizer: module mine has no adamw; did you mean adam?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--model", "models.graphs.neuralgraph:StaticGraph"], "has no StaticGraph"),
        (["--model", "nowhere:Model"], "there is no module nowhere"),
        (["--layers", "6"], "StaticNeuralGraph: layers must be at least 2 and divide"),
        (["--model_args", "depth=3"], "takes no argument depth"),
        (["--data_args", "num_image=3"], "takes no argument num_image; did you mean num_images?"),
        (["--data_args", "num_images=many"], "num_images Input should be a valid integer"),
        (["--model", "collections:Counter"], "is no torch.nn.Module"),
        (["--model", "collections:OrderedDict"], "OrderedDict does not tell its arguments"),
        (["--momentum", "0", "--nesterov"], "sgd: Nesterov momentum requires"),
        (["--graph", "torch.nn:Linear"], "is no subclass of models.graphs.edges.EdgeRule"),
    ],
)
def test_wrong_parts(write_app, capsys, argv, message):
    assert run(write_app(), *argv) == 2
    assert message in capsys.readouterr().err
