"""The program of `make demo`, at reduced length."""

import re

from fig import demo


def test_the_demo_trains_tells_and_draws(tmp_path, capfd):
    options = ["--num_epochs", "2", "--save_dir", str(tmp_path / "c"), "--log_dir", str(tmp_path / "r")]
    assert demo.main(options) == 0
    printed = capfd.readouterr().out
    rows = [line for line in printed.splitlines() if re.match(r"\| +\d", line)]
    assert [int(row.split("|")[1]) for row in rows] == [0, 10, 20, 30, 45, 90]
    live = [int(re.search(r"(\d+) of 100", row)[1]) for row in rows]
    assert live[0] > live[-1] > 10
    assert "%" not in rows[0]
    assert rows[-1].count("%") == 2
    (page,) = tmp_path.glob("r/*/wiring.html")
    assert f"{page}: " in printed


def test_a_failing_training_ends_the_demo(capfd):
    assert demo.main(["--lr", "-1"]) == 2
    assert "lr: must be greater than 0" in capfd.readouterr().err
