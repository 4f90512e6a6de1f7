from __future__ import annotations

import functools
import gc
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from support.stores import N_MODELS, small_database
from support.storing import batch, forget

import memdb

# Networks this small gain nothing from threads, and those of two workers on two cores wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How far Hypothesis searches: scripts/test, scripts/test --all, and by hand with --hypothesis-profile deep.
# No deadlines: a busy machine says nothing about the code, and performance lives in benchmarks.
for profile, n_examples in {"quick": 8, "all": 100, "deep": 2000}.items():
    settings.register_profile(
        profile, max_examples=n_examples, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
settings.load_profile("quick")

# A shell that starts the tests in the background lets them ignore Ctrl-C, and all that they start with them.
signal.signal(signal.SIGINT, signal.default_int_handler)


BUDGET = 180  # CPU seconds of scripts/test: two minutes on two cores


def pytest_terminal_summary(terminalreporter, config):
    """Show what the run cost, workers and commands included: how long it took depends on what else ran."""
    spent = sum(os.times()[:4])
    default = config.getini("addopts")[-1]
    is_whole = config.args_source == config.ArgsSource.TESTPATHS and not config.option.keyword
    line = f"{spent:.0f} CPU seconds"
    if is_whole and config.option.markexpr == default:
        line += f"; the default run has {BUDGET}, see docs/contributing.md"
    terminalreporter.write_line(line, yellow=is_whole and spent > BUDGET)


@pytest.fixture(scope="module", autouse=True)
def little_garbage():
    """Keep modules and shared fixtures out of collections of garbage, which would look at all of them each time."""
    yield
    forget()
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def commands_built_once():
    """Typer builds the commands anew whenever one is called, which takes longer than most commands."""
    import typer

    built = functools.cache(lambda app, *_n_commands: get_command(app))
    get_command = typer.main.get_command
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            typer.main,
            "get_command",
            lambda app: built(app, len(app.registered_commands), len(app.registered_groups)),
        )
        yield


@pytest.fixture(scope="session", autouse=True)
def disk_that_is_not_waited_for():
    """No test cuts the power, so fsync could show nothing; when it is called is what tests of it watch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def home_of_its_own(tmp_path_factory):
    """Tests neither see nor change what this machine's user named, trusts and keeps in a cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLCONFIGDIR", str(Path.home() / ".cache" / "matplotlib"))  # fonts were found once
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Requests are made again as often as ever, at once."""
    from memdb.storage import remote
    from memdb.storage.retry import Patience

    monkeypatch.setattr(remote, "PATIENCE", Patience(first=0.001, longest=0.002))


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The folder of a store of 23 + 11 examples with 37 models in segments of 5 and less."""
    url = tmp_path_factory.mktemp("small") / "store.zarr"
    with small_database(url) as made:
        made.train(seeds=range(37), device="cpu")  # which spares importing PyTorch to look for others
    return url


@pytest.fixture
def database(trained, tmp_path):
    """The same store, opened, to do with as one likes."""
    shutil.copytree(trained, tmp_path / "store.zarr")
    with memdb.open(str(tmp_path / "store.zarr")) as opened:
        yield opened


@pytest.fixture(scope="module")
def asked(trained):
    """The same store, opened once for all tests of a file that only ask it."""
    before = sorted(trained.rglob("*"))
    with memdb.open(str(trained)) as opened:
        yield opened
    assert sorted(trained.rglob("*")) == before


@pytest.fixture(scope="session")
def sixty(tmp_path_factory):
    """A store of 60 models: enough to plan with its own rates."""
    url = tmp_path_factory.mktemp("sixty") / "store.zarr"
    with small_database(url) as made:
        made.train(seeds=range(N_MODELS), compact=False, device="cpu")
    return url


@pytest.fixture(scope="module")
def db(sixty):
    """That store, opened once for all tests of a file, which only ask it."""
    with memdb.open(str(sixty)) as opened:
        yield opened


@pytest.fixture
def empty(tmp_path):
    """A store without models."""
    with small_database(tmp_path / "empty.zarr") as made:
        yield made


@pytest.fixture(scope="session")
def digits_store(tmp_path_factory):
    """The store of the README with 40 models, whose outcomes are as random as their subsets."""
    pytest.importorskip("torch")
    url = tmp_path_factory.mktemp("digits") / "memdb.zarr"
    with memdb.init(str(url), seed=1) as made:
        models, masks, outcomes = batch(made.store, range(40))
        for name in ("train", "test"):
            correct = outcomes[f"{name}/correct"]
            sure = np.random.default_rng(1).exponential(size=correct.shape)
            outcomes[f"{name}/logit_confidence"] = np.where(correct, sure, -sure)
        made.store.commit(models, masks, outcomes)
    return url


@pytest.fixture(scope="session")
def torch():
    """PyTorch, loaded by the first test that trains with it: a second and more that others need not wait for."""
    return pytest.importorskip("torch")


@pytest.fixture(scope="session")
def cuda(torch):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.fixture(scope="session")
def sklearn():
    """scikit-learn, in the same way."""
    return pytest.importorskip("sklearn")


@pytest.fixture(scope="session")
def stats():
    """Distributions and rank correlations as SciPy computes them."""
    return pytest.importorskip("scipy.stats")


@pytest.fixture
def real_data():
    """The folder with real data sets, where there is one."""
    root = os.environ.get("MEMDB_TEST_DATA")
    if not root:
        pytest.skip("MEMDB_TEST_DATA names no folder with MNIST")
    return Path(root)


@pytest.fixture(scope="session")
def s3():
    """Options for an S3 server on loopback, with a bucket named so."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    options = {"key": "k", "secret": "s", "endpoint_url": f"http://{host}:{port}"}
    import s3fs

    s3fs.S3FileSystem(**options).mkdir("bucket")
    yield options
    server.stop()
