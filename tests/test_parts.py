"""The parts that an experiment names: one's own, wrong ones, and settings that none of them asks for."""

import pytest

import runner


def run(path, *argv):
    return runner.main([f"app:{path}", *argv])


def test_settings_without_effect_are_told(write_app, caplog):
    run(write_app(graph="complete", edge_scope="readable", width_mult=0.5), "--num_epochs", "1")
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
        (["--model", "collections:Counter"], "is not a torch.nn.Module"),
        (["--model", "collections:OrderedDict"], "OrderedDict has no signature"),
        (["--momentum", "0", "--nesterov"], "nestorov: needs a momentum greater than 0"),
        (["--graph", "torch.nn:Linear"], "is not a subclass of wirings.rules.base.EdgeRule"),
    ],
)
def test_wrong_parts(write_app, capsys, argv, message):
    assert run(write_app(), *argv) == 2
    assert message in capsys.readouterr().err


MOBILENET = ["--model", "models.graphs.mobilenetv1like:MobileNetV1Like", "--topk", "1"]
DENSE = ["--model", "models.basic.mobilenetv1cifar:MobileNetV1CIFAR"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--dim", "3000008"], "dim: 3000008: a tensor of 3000008 × 3000008 numbers needs"),
        (["--output_size", "1000000000000"], "output_size: 1000000000000: a tensor of"),
        (
            ["--image_size", "400000000"],
            "model: models.graphs.neuralgraph:StaticNeuralGraph with in_channels",
        ),
        (["--in_channels", "1000000000000"], "in_channels: 1000000000000: a tensor of"),
        (
            [*DENSE, "--width_mult", "1e9"],
            "with in_channels 3, image_size 16, output_size 10, width_mult 1000000000.0: a tensor",
        ),
        ([*DENSE, "--width_mult", "1e308"], "needs more memory than there is"),
        (["--layers", "1000000000"], "layers: must be less than or equal to 10000"),
        (["--workers", "100000"], "workers: must be less than or equal to 1024"),
        (["--processes", "100000"], "processes: must be less than or equal to 1024"),
        (["--timeout", "1e300"], "timeout: must be less than or equal to 10000000"),
        (["--batch_size", "100000000000000000000"], "batch_size: must fit into 64 bits"),
        (
            [*MOBILENET, "--data", "data.digits:Digits", "--image_size", "1000000"],
            "image_size: 1797 digits of",
        ),
    ],
)
def test_sizes_that_no_machine_has(write_app, capsys, tmp_path, argv, message):
    assert run(write_app(), *argv) == 2
    said = capsys.readouterr().err
    assert message in said
    assert not (tmp_path / "runs").exists()


def test_a_batch_of_one_pixel(write_app, capsys):
    """22 images in batches of 3: the last one holds a single image, of which a batch norm sees one value."""
    assert run(write_app(batch_size=3, image_size=1), *MOBILENET) == 2
    said = capsys.readouterr().err
    assert "batch_size: training by a batch of 3 images of 1 × 1 pixels: a norm had one value" in said
    assert "Traceback" not in said


def test_memory_that_ends_in_the_middle(write_app, capsys, monkeypatch):
    def fail(*arguments):
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:1] . DefaultCPUAllocator: can't allocate memory: x"
        )

    monkeypatch.setattr("torch.optim.SGD.step", fail)
    assert run(write_app()) == 2
    said = capsys.readouterr().err
    assert (
        "batch_size: training by a batch of 8 images of 16 × 16 pixels needs more memory than there is "
        "(DefaultCPUAllocator: can't allocate memory: x); choose smaller sizes" in said
    )


def test_keys_of_the_training_are_part_of_an_evaluation(write_app, tmp_path, caplog):
    """They say which experiment the checkpoint belongs to; so they are not reported as without effect."""
    app = write_app(num_epochs=1)
    folders = ["--save_dir", str(tmp_path / "c"), "--log_dir", str(tmp_path / "r"), "--lr", "0.05"]
    assert runner.main([f"app:{app}", *folders]) == 0
    caplog.clear()
    resume = ["--resume", str(tmp_path / "c" / "tiny" / "last.pt"), "--evaluate"]
    assert runner.main([f"app:{app}", *folders, *resume]) == 0
    assert "no effect" not in caplog.text and "other settings" not in caplog.text
