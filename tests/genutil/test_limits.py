"""Files that a user names are read within limits: of kind, size, depth and number."""

import os

import pytest

from fig.finished_runs import read_metrics, read_results
from genutil.config import ConfigError, load_config
from genutil.config.limited_yaml import load_yaml
from genutil.exceptions import UserError
from genutil.text_files import read_json, read_text


def refused(path, **overrides):
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)


@pytest.fixture
def fifo(tmp_path):
    """A pipe that nobody writes to: opening it the usual way never returns."""
    os.mkfifo(tmp_path / "pipe.yml")
    return tmp_path / "pipe.yml"


def test_only_regular_files_are_read(write_app, tmp_path, fifo):
    for path in ("/dev/zero", "/dev/stdin", fifo, tmp_path):
        text = refused(write_app(_base_=str(path)))
        assert text.startswith("1 problem in this experiment:")
        assert "cannot be read: it is not a regular file" in text
        assert "tiny.yml, line 1" in text
        assert "it is not a regular file" in refused(path)


def test_a_file_has_a_largest_size(tmp_path):
    path = tmp_path / "large.yml"
    path.write_text("# " + "x" * 2**20)
    assert "large.yml: cannot be read: it is larger than 1 MB, the limit for such a file" in refused(path)
    assert "larger than 1 MB" in refused("/proc/kallsyms")  # a regular file whose size is on record as 0


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
    for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)
CHAIN = "model_args:\n  a0: &a0 [x]\n" + "".join(f"  a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 300))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr: " + "[" * 20_000, "nested more than 50 deep"),
        ("lr: " + "{a: " * 20_000, "nested more than 50 deep"),
        ("lr:\n" + "- " * 20_000 + "1", "nested more than 50 deep"),
        (CHAIN, "nested more than 50 deep"),
        (LAUGHS, "holds more than 10,000 values, aliases written out"),
        (f"lr: [{'0, ' * 15_000}]", "holds more than 10,000 values"),
        ("a: &a {x: 1}\nb:\n" + "  <<: [" + "*a, " * 6_000 + "]", "holds more than 10,000 values"),
        ("lr: !!bool x", "'x' is not a value of type tag:yaml.org,2002:bool"),
        ("lr: !!timestamp x", "'x' is not a value of type tag:yaml.org,2002:timestamp"),
        ("lr: " + "1:" * 300 + "1.5", "is not a value of type tag:yaml.org,2002:float"),
    ],
)
def test_texts_without_end_are_refused(tmp_path, text, message):
    path = tmp_path / "x.yml"
    path.write_text(text)
    found = refused(path)
    assert message in found
    assert "x.yml, line" in found
    with pytest.raises(ValueError, match=message):
        load_yaml(text)


def test_a_long_value_is_cut_in_the_message(write_app):
    found = refused(write_app(lr="fast" * 10_000, seed=10**4200))
    assert "lr: must be a valid number, got 'fastfast" in found
    assert "seed: must" in found
    assert len(found) < 1500
    found = refused(write_app(seed=1), seed=10**5000)
    assert "got a number of thousands of digits  (--seed)" in found


def test_a_chain_of_bases_has_a_length(tmp_path):
    for number in range(1500):
        (tmp_path / f"{number}.yml").write_text(f"_base_: {number + 1}.yml\n")
    found = refused(tmp_path / "0.yml")
    assert "20.yml is not read: a chain of bases may be 20 files long" in found
    assert "1 problem" in found


def test_an_experiment_has_a_number_of_files(tmp_path):
    """Each file names the next one twice: 2 ** 18 files, were all of them read."""
    for number in range(18):
        (tmp_path / f"{number}.yml").write_text(f"_base_: [{number + 1}.yml, {number + 1}.yml]\n")
    (tmp_path / "18.yml").write_text("lr: 0.1\n")
    found = refused(tmp_path / "0.yml")
    assert "is not read: an experiment may have 100 files, bases included" in found
    assert "3 problems" in found and "model: is missing" in found


def test_names_of_bases_that_no_file_can_have(write_app, tmp_path):
    assert "a file's name holds no null character" in refused(write_app(_base_="a\0b"))
    assert "cannot be read" in refused(write_app(_base_="x" * 5000))
    (tmp_path / "one.yml").symlink_to("two.yml")
    (tmp_path / "two.yml").symlink_to("one.yml")
    assert "cannot be read" in refused(write_app(_base_="one.yml"))


@pytest.mark.parametrize("key", ["data_dir", "save_dir", "log_dir", "resume", "use_graph"])
def test_paths_that_no_machine_has(write_app, key):
    named = refused(write_app(), **{key: "~nobody_of_this_name/x"})
    assert f"{key}: names the home folder of a user that this machine does not have" in named
    assert f"{key}: must hold no null character" in refused(write_app(), **{key: "a\0b"})
    assert "there is no such file" in refused("~nobody_of_this_name/x.yml")


def test_a_file_that_is_missing_is_looked_for_in_few_folders(tmp_path, monkeypatch):
    """The nearest folder may be the root of all files, in which folders come and go."""
    searched = []
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda top: (searched.append(found[0]) or found for found in walk(top)))
    for number in range(300):
        (tmp_path / f"f{number}" / "gone").mkdir(parents=True)
    assert "there is no such file" in refused(tmp_path / "nowhere" / "x.yml")
    assert 0 < len(searched) <= 201
    assert "there is no such file" in refused("/nowhere/x.yml")


@pytest.mark.parametrize("key", ["batch_size", "seed", "dim", "num_epochs", "gpus", "workers", "topk"])
def test_integers_have_64_bits(write_app, key):
    assert f"{key}: must fit into 64 bits" in refused(write_app(), **{key: 10**20})


def test_reports_are_read_within_the_same_limits(tmp_path, fifo):
    run = tmp_path / "run"
    run.mkdir()
    deep = "[" * 10_000
    for text, message in ((deep, "nested too deeply"), ("{", "Expecting"), ("1" * 5000, "digits")):
        (run / "results.json").write_text(text)
        with pytest.raises(UserError, match=message):
            read_results([run])
    (run / "metrics.jsonl").write_text(deep)
    with pytest.raises(UserError, match="nested too deeply"):
        read_metrics({"folder": str(run), "name": "run", "config": {}})
    for read in (read_text, read_json):
        with pytest.raises(OSError, match="not a regular file"):
            read(fifo)
