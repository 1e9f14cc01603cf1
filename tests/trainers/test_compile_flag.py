"""`--compile` on the command line."""

import pytest

import runner


@pytest.mark.slow
def test_compiled_training_and_evaluation(write_app, tmp_path):
    path = write_app(num_epochs=1)
    assert runner.main([f"app:{path}", "--compile"]) == 0
    last = str(tmp_path / "checkpoints" / "tiny" / "last.pt")
    assert runner.main([f"app:{path}", "--resume", last, "--evaluate"]) == 0  # names are as always
    assert runner.main([f"app:{path}", "--resume", last, "--evaluate", "--compile"]) == 0
