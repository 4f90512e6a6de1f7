"""Networks and servers on a bad day: an operation succeeds or says what failed, and no answer is wrong."""

from __future__ import annotations

import functools
import itertools
import uuid
from datetime import timedelta

import pytest
from hypothesis import settings
from support.cases import every
from support.commands import QuietHandler, web_server
from support.fault_proxy import FAULTS, FaultProxy
from support.stores import coin_recipe, small_dataset
from support.storing import batch, contents, contents_of, forget

import memdb
from memdb.errors import InvalidInputError, MemdbError
from memdb.storage import open_storage
from memdb.storage.retry import Patience
from memdb.store import Store
from memdb.store.maintenance import compact as compaction
from memdb.store.maintenance import gc as cleaning
from memdb.store.maintenance import retract
from memdb.store.read_arrays import read_object
from memdb.store.snapshot import arrays_of

SURVIVED = ("429", "500", "503", "reset", "short_body", "slow")  # one of them is not even noticed
ANYWHERE = [fault for fault in FAULTS if not fault.startswith("ignored")]  # few requests have such a header
NEW_SEEDS = (7, 8)


def everything(storage):
    """All that a store answers from: every model's bits, every example's name and label."""
    store = Store.open(storage)
    examples = [store.examples(name) for name in ("train", "test")]
    return contents(store.snapshot()), [(part.keys, part.labels.tolist()) for part in examples]


def commit(storage):
    store = Store.open(storage)
    store.commit(*batch(store, NEW_SEEDS))
    return "done"


def compact(storage):
    compaction.compact(Store.open(storage))
    return "done"


def gc(storage):
    store = Store.open(storage)
    doomed = cleaning.garbage(store, timedelta(0), alone=True)
    list(cleaning.remove(store, doomed))
    return "done"


OPERATIONS = {"commit": commit, "compact": compact, "gc": gc, "query": everything}


def impatient(url, options=None):
    storage = open_storage(url, options)
    storage._patience = Patience(attempts=4, first=0.001, longest=0.01)
    return storage


class Template:
    """A small store as objects: a block of two segments, one of them still there, a third, a retraction."""

    def __init__(self):
        url = f"memory://{uuid.uuid4().hex}/s.zarr"
        store = memdb.init(url, small_dataset(), coin_recipe, seed=7, outcomes=["correct"]).store
        parts = [batch(store, seeds) for seeds in ((1, 2), (3, 4), (5, 6))]
        first = store.commit(*parts[0])
        store.commit(*parts[1])
        compaction.compact(store)
        store.storage.remove([item.path for item in store.storage.find(first.group)])
        self.loose = store.commit(*parts[2]).segment_id
        retracted = parts[0][0][1].model_id
        retract.retract(store, [retracted], "a reason")
        self.objects = {item.path: store.storage.read(item.path) for item in store.storage.find("")}
        self.models = {k: v for part in parts for k, v in contents_of(part).items() if k != retracted}
        self.more_models = self.models | contents_of(batch(store, NEW_SEEDS))
        self.examples = [
            ([f"train/{row}.png" for row in range(23)], [row % 3 for row in range(23)]),
            ([str(row) for row in range(11)], [row % 3 for row in range(11)]),
        ]
        self.answer = self.models, self.examples


@pytest.fixture(scope="module")
def template():
    return Template()


class Bucket:
    """A bucket of the S3 server in this process: by faulty requests, or directly and without any."""

    def __init__(self, options, proxy, template):
        from moto.backends import get_backend
        from moto.core import DEFAULT_ACCOUNT_ID

        self._objects = get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"]
        self.options = {**options, "endpoint_url": proxy.url}
        self.proxy, self.template = proxy, template
        self.n_requests = {name: self._counted(operation) for name, operation in OPERATIONS.items()}

    def storage(self, objects=None):
        """A new store, all requests to which go through the proxy."""
        prefix = uuid.uuid4().hex
        for path, data in (self.template.objects if objects is None else objects).items():
            self._objects.put_object("bucket", f"{prefix}/{path}", data)
        return impatient(f"s3://bucket/{prefix}", self.options)

    def answer(self, storage):
        """What the server holds now, read by another client without any fault."""
        prefix = storage.url.removeprefix("s3://bucket/")
        keys = self._objects.buckets["bucket"].keys
        copied = open_storage(f"memory://{uuid.uuid4().hex}")
        held = [name for name in list(keys) if name.startswith(prefix)]
        copied.write_all({name.removeprefix(f"{prefix}/"): keys[name].value for name in held})
        try:
            return everything(copied)
        finally:
            forget(copied.url)

    def _counted(self, operation):
        before = len(self.proxy.log)
        operation(self.storage())
        return len(self.proxy.log) - before


@pytest.fixture(scope="module")
def proxy(s3):
    host, port = s3["endpoint_url"].removeprefix("http://").split(":")
    with FaultProxy(host, int(port)) as running:
        yield running


@pytest.fixture(scope="module")
def whole_bucket(s3, proxy, template):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("support.fault_proxy.SLOW_SECONDS", 0.05)
        yield Bucket(s3, proxy, template)


@pytest.fixture
def bucket(whole_bucket):
    yield whole_bucket
    whole_bucket.proxy.clear()


@pytest.fixture(scope="module")
def website(template, tmp_path_factory):
    """A proxy before a web server with the same store, compacted: a web server lists nothing."""
    folder = tmp_path_factory.mktemp("website")
    storage = open_storage(str(folder / "s.zarr"))
    storage.write_all(template.objects)
    compact(storage)

    handler = functools.partial(QuietHandler, directory=folder)
    with web_server(handler) as server, FaultProxy("127.0.0.1", server.server_port) as running:
        running.folder = str(folder / "s.zarr")
        yield running


def tried(operation, storage):
    """What an operation returned or raised."""
    try:
        return operation(storage)
    except Exception as error:  # noqa: BLE001 - whether it is one of memdb's is what the tests ask
        return error


def injected(proxy, fault, position, operation, storage, times=1):
    """What an operation came to with a fault at a request; None if it makes no such request."""
    n_before = proxy.n_injected
    proxy.clear()
    proxy.inject(fault, times=times, after=position)
    result = tried(operation, storage)
    proxy.clear()
    return None if proxy.n_injected == n_before else result


def problems_of(bucket, operation, times, fault, position):
    """All that went wrong after a fault at a request of an operation; None past its last one."""
    storage, template = bucket.storage(), bucket.template
    result = injected(bucket.proxy, fault, position, OPERATIONS[operation], storage, times)
    if result is None:
        return None
    right = template.answer if operation == "query" else "done"
    found, failed = judged(fault, result, right, times), isinstance(result, Exception)
    afterwards = {"commit": [template.more_models, template.models][: 1 + failed]}
    allowed = [(models, template.examples) for models in afterwards.get(operation, [template.models])]
    held = tried(bucket.answer, storage)
    if held not in allowed:
        found.append(f"wrong content afterwards: {held!r:.200}")
    return [f"{problem}, after {fault} ({times}) at {position} of {operation}" for problem in found]


def judged(fault, result, right, times=1):
    if isinstance(result, MemdbError):
        return [f"not survived: {result}"] if fault in SURVIVED and times else []
    return [] if result == right else [f"wrong answer: {result!r:.200}"]


def require_no_problem(name, attempt, first=0, step=1):
    """Try every fault at each ``step``-th request, say how many that were, and fail with all that went wrong.

    The next fault begins one request later, so that ``step`` faults in turn try every request.
    """
    n_faults, found = 0, []
    for number, fault in enumerate(FAULTS):
        for position in itertools.count((first + number) % step, step):
            problems = attempt(fault, position)
            if problems is None:
                break
            n_faults += 1
            found += problems
    n_wrong = sum(problem.startswith("wrong") for problem in found)
    print(
        f"{name}: {n_faults} injected faults tried, {n_wrong} wrong answers, {len(found) - n_wrong} not survived"
    )
    assert found == [], "\n".join(found)


@pytest.mark.parametrize(
    ("operation", "fault"),
    every(11, [(operation, fault) for fault in ANYWHERE for operation in OPERATIONS]),
)
def test_one_fault_is_survived_or_said_and_never_answered_with(bucket, operation, fault):
    place = ANYWHERE.index(fault) * bucket.n_requests[operation] // len(ANYWHERE)
    assert problems_of(bucket, operation, 1, fault, place) == []


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, None], ids=["once", "from_then_on"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_fault_at_each_request(bucket, operation, times):
    """Once at every other request, and from then on at the others; with the profile ``deep`` both at all of them."""
    step = 1 if settings().max_examples > 100 else 2
    attempt = functools.partial(problems_of, bucket, operation, times)
    require_no_problem(operation, attempt, first=times is None, step=step)


@pytest.mark.parametrize(
    ("operation", "where", "faults"),
    every(
        3,
        [
            ("commit", {"method": "PUT"}, ["403", "500", "reset", "lost_ack", "html"]),
            ("query", {"path": "mask/c."}, ["404", "503", "short_body", "cut_body", "altered_body", "html"]),
            ("compact", {"path": "snapshots/2.json"}, ["403", "lost_ack", "html"]),
            ("gc", {"method": "DELETE"}, ["403", "429", "lost_ack"]),
        ],
    ),
)
def test_a_lasting_fault_is_an_error_that_says_where_and_changes_no_answer(bucket, operation, where, faults):
    storage = bucket.storage()
    for fault in faults:
        bucket.proxy.clear()
        bucket.proxy.inject(fault, **where)
        with pytest.raises(MemdbError) as caught:
            OPERATIONS[operation](storage)
        assert storage.url in str(caught.value)
        assert bucket.answer(storage) == bucket.template.answer


@pytest.mark.parametrize("after", [0, 2, 4])
@pytest.mark.parametrize("listing", ["list-type", "snapshots%2F"])
def test_cleaning_up_by_a_listing_that_is_not_the_storages_loses_nothing(bucket, listing, after):
    storage = bucket.storage()
    bucket.proxy.inject("html", path=listing, after=after)
    assert judged("html", tried(gc, storage), "done") == []
    assert tried(bucket.answer, storage) == bucket.template.answer


def test_a_segment_that_is_denied_once_is_not_taken_for_one_that_was_never_committed(bucket):
    storage = bucket.storage()
    bucket.proxy.inject("404", path=f"{bucket.template.loose}/zarr.json", times=1)
    assert judged("404", tried(everything, storage), bucket.template.answer) == []


def test_a_compaction_whose_acknowledgement_is_lost_knows_its_own_snapshot(bucket):
    storage = bucket.storage()
    bucket.proxy.inject("lost_ack", method="PUT", path="snapshots/2.json", times=1)
    done = compaction.compact(Store.open(storage))
    assert done.record.number == 2
    assert Store.open(storage).snapshot().number == 2
    assert bucket.answer(storage) == bucket.template.answer


@pytest.mark.slow
def test_where_servers_ignore_preconditions_compaction_is_for_one_who_is_alone(bucket):
    bucket.proxy.inject("ignored_precondition")
    url = f"{bucket.storage({}).url}/s.zarr"
    store = memdb.init(
        url, small_dataset(), coin_recipe, seed=7, outcomes=["correct"], storage_options=bucket.options
    ).store
    assert store.manifest.put_if_absent is False
    parts = [batch(store, seeds) for seeds in ((1, 2), (3, 4))]
    for part in parts:
        store.commit(*part)
    with pytest.raises(InvalidInputError, match="overwrites objects that it should only create"):
        compaction.compact(store)
    assert compaction.compact(store, alone=True).n_models == 4
    assert contents(store.snapshot()) == contents_of(parts[0]) | contents_of(parts[1])


def rows_and_ranges(storage):
    """Some rows of every part and a range of every object of it."""
    snapshot = Store.open(storage).snapshot()
    found = []
    for part in snapshot.segments:
        shape = (23, 1)
        found.append(arrays_of(storage, part).read("train/correct", shape, "uint8", (3, 9)).tolist())
        for name, info in part.objects.items():
            found.append(read_object(storage, f"{part.group}/{name}", info, 5, info.size - 1))
    return found


def test_ranges_are_right_where_a_server_ignores_them(bucket, website):
    storage = bucket.storage()
    right = rows_and_ranges(storage)
    n_before = bucket.proxy.n_injected
    bucket.proxy.inject("ignored_range")
    assert rows_and_ranges(storage) == right
    assert everything(storage) == bucket.template.answer
    assert bucket.proxy.n_injected > n_before
    pages = impatient(f"{website.url}/s.zarr")  # this server knows no ranges
    assert rows_and_ranges(pages) == rows_and_ranges(open_storage(website.folder))


def problems_on_the_web(website, template, fault, position):
    result = injected(website, fault, position, everything, impatient(f"{website.url}/s.zarr"))
    if result is None:
        return None
    return [
        f"{problem}, after {fault} at request {position}"
        for problem in judged(fault, result, template.answer)
    ]


@pytest.mark.parametrize("fault", every(4, FAULTS))
def test_one_fault_on_the_web_is_survived_or_said_and_never_answered_with(website, template, fault):
    for position in range(list(FAULTS).index(fault) % 7, 24, 7):
        assert problems_on_the_web(website, template, fault, position) in ([], None)


def test_a_snapshot_that_a_web_server_denies_once_is_not_taken_for_one_that_was_never_made(website, template):
    website.inject("404", path="snapshots/2.json", times=1)
    assert judged("404", tried(everything, impatient(f"{website.url}/s.zarr")), template.answer) == []


@pytest.mark.slow
def test_every_fault_at_each_request_on_the_web(website, template):
    require_no_problem("web", functools.partial(problems_on_the_web, website, template))
