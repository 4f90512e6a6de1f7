"""Every file operation of append, compact and gc in turn fails, or is where the process is killed."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import timedelta

import pytest
from support import TESTS
from support.cases import every
from support.stores import small_database
from support.storing import FailingStorage, batch, contents, contents_of, forget

from memdb.errors import MemdbError, StorageError
from memdb.storage import open_storage
from memdb.store import Store
from memdb.store.maintenance import compact, gc, verify

MODELS = [[1, 2], [3], [4, 5, 6], [2, 7]]


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A store with a block, the segments compacted into it, loose segments and a killed writer's leftover."""
    url = tmp_path_factory.mktemp("template") / "s.zarr"
    store = small_database(url, outcomes=["correct"]).store
    for position, seeds in enumerate(MODELS):
        if position == 2:
            compact.compact(store)
        store.commit(*batch(store, seeds))
    broken = replace(store, storage=FailingStorage(store.storage, 4))
    with pytest.raises(StorageError):
        broken.commit(*batch(store, [99]))
    return url


def check(url, template, operation, status):
    """The invariants: what was there is there once, what was not acknowledged is whole or not there."""
    before = contents(Store.open(open_storage(str(template))).snapshot())
    store = Store.open(open_storage(str(url)))
    found = contents(store.snapshot())
    new = contents_of(batch(store, [70, 71])) if operation == "commit" else {}
    assert found in ([before | new] if status == 0 else [before, before | new])
    assert verify.verify(store).damages == []
    assert sorted(before) == sorted(contents_of(batch(store, range(1, 8))))
    store.commit(*batch(store, [70, 71]))
    compact.compact(store)
    list(
        gc.remove(
            store,
            gc.garbage(store, timedelta(0), alone=True),
        )
    )
    assert contents(store.snapshot()) == before | contents_of(batch(store, [70, 71]))
    left = {item.path.split("/")[0] for item in store.storage.find("") if item.path.endswith(".tmp")}
    assert left == set()


def try_all(template, tmp_path, operation, how, first, step):
    command = [
        sys.executable,
        "-m",
        "support.dying",
        template,
        tmp_path,
        operation,
        how,
        str(first),
        str(step),
    ]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    tried = sorted(tmp_path.glob("*.status"), key=lambda path: int(path.stem))
    expected = {-9} if how == "kill" else {0, 3}
    for path in tried:
        status = int(path.read_text())
        assert status in expected | ({0} if path == tried[-1] else set()), (path.stem, done.stderr)
        check(path.with_suffix(""), template, operation, status)
    return int(tried[-1].stem)


@pytest.mark.parametrize(
    ("operation", "how"), every(3, [("commit", "kill"), ("gc", "kill"), ("compact", "fail")])
)
def test_at_some_operations(template, tmp_path, operation, how):
    n_operations = try_all(template, tmp_path, operation, how, {"kill": 20, "fail": 7}[how], 95)
    assert n_operations > 20


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "fail"])
@pytest.mark.parametrize("operation", ["commit", "compact", "gc"])
def test_at_every_operation(template, tmp_path, operation, how):
    n_operations = try_all(template, tmp_path, operation, how, 0, 1)
    print(f"{operation}, {how}: {n_operations} operations, 0 models lost, 0 doubled")


REFUSALS = pytest.mark.parametrize("lasting", every(2, [False, True]), ids=["once", "from then on"])
OPERATIONS = pytest.mark.parametrize("operation", ["commit", "compact", "gc", "query"])


@REFUSALS
@OPERATIONS
def test_a_storage_that_refuses_some_requests(template, tmp_path, operation, lasting):
    """The same at the requests of any storage, reads and listings included."""
    refuse(template, tmp_path, operation, lasting, range(3 + 10 * lasting, 200, 31))


@pytest.mark.slow
@REFUSALS
@OPERATIONS
def test_a_storage_that_refuses_any_request(template, tmp_path, operation, lasting):
    refuse(template, tmp_path, operation, lasting, range(200))


def refuse(template, tmp_path, operation, lasting, positions):
    files = {path.relative_to(template).as_posix(): path for path in template.rglob("*") if path.is_file()}
    for allowed in positions:
        url = f"memory://{tmp_path.name}/{allowed}"
        open_storage(url).write_all({name: path.read_bytes() for name, path in files.items()})
        storage = FailingStorage(
            open_storage(url), allowed, operations=FailingStorage.OPERATIONS, lasting=lasting
        )
        try:
            store = Store.open(storage)
            if operation == "commit":
                store.commit(*batch(store, [70, 71]))
            elif operation == "compact":
                compact.compact(store)
            elif operation == "gc":
                doomed = gc.garbage(store, timedelta(0), alone=True)
                list(gc.remove(store, doomed))
            else:
                intact = Store.open(open_storage(str(template))).snapshot()
                assert contents(store.snapshot()) == contents(intact)
        except MemdbError:
            status = 3
        else:
            status = 0
        check(url, template, operation, status)
        forget(url)
        if storage.allowed >= 0:
            break
    assert 10 < allowed < 199
