"""The program of `make demo`, at reduced length."""

import re

from fig import demo
from genutil.runs.wiring_record import Record, State
from tests.fig.wirings import LAYOUT, state


def test_the_demo_trains_tells_and_draws(tmp_path, capfd, trains_in_this_process):
    options = ["--num_epochs", "2", "--save_dir", str(tmp_path / "c"), "--log_dir", str(tmp_path / "r")]
    assert demo.main(options) == 0
    printed = capfd.readouterr().out
    rows = [line for line in printed.splitlines() if re.match(r"\| +\d", line)]
    assert [int(row.split("|")[1]) for row in rows] == [0, 10, 20, 30, 45, 90]
    live = [int(re.search(r"(\d+) of 100", row)[1]) for row in rows]
    assert live[0] > live[-1] > 10
    assert "%" not in rows[0]
    assert rows[-1].count("%") == 2
    assert "training accuracy (steps)" in printed
    covered = [re.search(r"% \((\d+)–(\d+)\)", row) for row in rows[1:]]
    assert [found.groups() for found in covered] == [
        ("1", "10"), ("11", "20"), ("21", "30"), ("41", "45"), ("81", "90")
    ]  # fmt: skip
    (page,) = tmp_path.glob("r/*/wiring.html")
    assert f"{page}: " in printed


def test_a_network_of_several_layers_is_told_together():
    layers = [{**LAYOUT[0], "name": name} for name in ("one", "other")]
    states = [state(step).layers["graph"] for step in (0, 10)]
    record = Record(
        layers, [State({"step": 0, "epoch": 0}, dict(zip(("one", "other"), states, strict=True)))]
    )
    assert "7 of 16" in demo.table(record)


def test_a_training_without_a_record_is_told(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(demo, "train_app", lambda app, options: (0, {"folder": str(tmp_path)}))
    assert demo.main(["--no-record_wiring"]) == 2
    assert "has no recorded wiring; train with --record_wiring" in capsys.readouterr().err


def test_a_failing_training_ends_the_demo(capfd):
    assert demo.main(["--lr", "-1"]) == 2
    assert "lr: must be greater than 0" in capfd.readouterr().err
