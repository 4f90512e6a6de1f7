"""compact, gc, verify, retract, cache and the options of a place, as they are typed."""

from __future__ import annotations

import json
import shutil

import pytest
from support.commands import run

import memdb
from memdb.storage import Cache


@pytest.fixture
def here(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "memdb.zarr")
    return tmp_path


def ask(here, *arguments):
    done = run(*arguments, "--format", "json", cwd=here)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_compaction_changes_no_answer_and_numbers_it(here):
    before = ask(here, "top-influence", "--test-id", 4)
    done = run("compact", cwd=here)
    assert (done.returncode, done.stdout) == (0, "")
    assert "Snapshot 1 of memdb.zarr: 37 models in 1 block. Took in 8 segments" in done.stderr
    assert "Next: memdb gc --dry-run" in done.stderr
    after = ask(here, "top-influence", "--test-id", 4)
    assert (before.pop("snapshot"), after.pop("snapshot")) == (None, 1)
    assert before == after
    assert "Nothing to compact: all 37 models" in run("compact", cwd=here).stderr


def test_an_old_answer_is_had_again_as_of_its_snapshot(here):
    run("compact", cwd=here)
    old = ask(here, "top-memorized")
    (model,) = ask(here, "sql", "SELECT model_id FROM models ORDER BY seed LIMIT 1")["rows"]
    done = run("retract", model["model_id"][:10], "--because", "a broken node", cwd=here)
    assert "Retracted 1 model from memdb.zarr, which has 36 that count." in done.stderr
    assert "scores are biased now" in done.stderr
    new = ask(here, "top-memorized")
    assert (new["n_models"], new["snapshot"]) == (36, None)
    assert ask(here, "top-memorized", "--as-of", 1) == old
    shown = run("info", cwd=here).stdout
    assert "1 model, not counted: a broken node" in shown
    assert "1, and models that came or went since" in shown
    missing = run("info", "--as-of", 7, cwd=here)
    assert (missing.returncode, "has no snapshot 7" in missing.stderr) == (1, True)


def test_gc_lists_first_and_removes_what_is_old_enough(here):
    run("compact", cwd=here)
    assert "Nothing to remove from memdb.zarr that is older than 24 hours." in run("gc", cwd=here).stderr
    refused = run("gc", "--grace", 1, cwd=here)
    assert refused.returncode == 1
    assert "a grace period of 1:00:00 is shorter than the 1 day" in refused.stderr
    listed = run("gc", "--grace", 0, "--alone", "--dry-run", cwd=here)
    assert listed.stdout.count("in a block") == 8
    assert "would go: memdb gc --grace 0 --alone" in listed.stderr
    before = ask(here, "top-memorized")
    removed = run("gc", "--grace", 0, "--alone", cwd=here)
    assert removed.stdout == listed.stdout
    assert "Removed" in removed.stderr
    assert list((here / "memdb.zarr" / "segments").iterdir()) == [
        here / "memdb.zarr" / "segments" / "zarr.json"
    ]
    assert ask(here, "top-memorized") == before


def test_verify_says_what_is_damaged_and_sets_it_aside(here):
    intact = run("verify", cwd=here)
    assert (intact.returncode, intact.stdout) == (0, "")
    assert "memdb.zarr is intact" in intact.stderr
    assert "37 models" in intact.stderr
    chunk = sorted((here / "memdb.zarr").glob("segments/*/train/correct/c.0.0"))[2]
    content = chunk.read_bytes()
    chunk.write_bytes(content[:-1])
    found = run("verify", cwd=here, COLUMNS="200")
    assert found.returncode == 1
    assert f"{chunk.parent.parent.parent.name}/train/correct/c.0.0" in found.stdout
    assert f"has {len(content) - 1} bytes where {len(content)} belong" in found.stdout
    assert "is damaged in 1 place, which 5 models would need" in found.stderr
    assert "verify --repair" in found.stderr
    assert run("info", cwd=here).returncode == 1
    repaired = run("verify", "--repair", cwd=here)
    assert repaired.returncode == 0
    assert "32 models are in use now" in repaired.stderr
    assert chunk.exists()
    assert ask(here, "info")["rows"][0]["n_models"] == 32
    assert "1 damaged part, not read" in run("info", cwd=here).stdout
    assert run("verify", cwd=here).returncode == 0


def test_the_cache_is_shown_and_cleared(here, tmp_path):
    folder = tmp_path / "cache"
    Cache(folder).keep("a", bytes(5000))
    shown = run("cache", "--cache-dir", folder, cwd=here)
    assert "5.03 kB of at most 10 GB" in shown.stdout
    other = folder / "ab" / "chair.obj"
    other.parent.mkdir()
    other.write_text("somebody else's")
    assert "of at most 1 kB" in run("cache", "--cache-dir", folder, "--cache-size", "1kB", cwd=here).stdout
    cleared = run("cache", "--clear", cwd=here, MEMDB_CACHE_DIR=str(folder), MEMDB_CACHE_SIZE="2MB")
    assert "0 B of at most 2 MB" in cleared.stdout
    assert "Removed 5.03 kB." in cleared.stderr
    assert other.exists()
    assert "There is no cache" in run("cache", "--cache-dir", "none", cwd=here).stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["info", "--endpoint-url", "http://127.0.0.1:9"], "memdb.zarr is a path, which takes no endpoint"),
        (["info", "--anonymous"], "memdb.zarr is a path, which takes no endpoint, no credentials"),
        (["info", "--storage-option", "profile=x"], "memdb.zarr is a path"),
        (["info", "-s", "s3://b/x", "--storage-option", "profile"], "'profile' is not NAME=VALUE"),
        (["info", "-s", "s3://b/x", "--storage-option", "config_kwargs=1"], "s3://b/x cannot be opened"),
        (["info", "-s", "https://b/x", "--anonymous"], "https://b/x takes no endpoint and no credentials"),
        (["info", "--cache-size", "inf"], "'inf' is not a size"),
        (["gc", "--grace", "1e12", "--alone"], "--grace 1e+12 is not a number of hours"),
        (["gc", "--grace", "-5", "--alone"], "--grace -5 is not a number of hours"),
        (["info", "--cache-size", "much"], "'much' is not a size"),
        (["info", "--cache-size", "-1GB"], "is below 0"),
        (["info", "-s", "nope://x/y"], "nope://x/y is not an address that memdb can read"),
        (["retract", "ab", "--because", "x"], "'ab' is too short"),
        (["compact", "-s", "nowhere"], "no memdb store at nowhere"),
        (["verify", "-s", "nowhere"], "no memdb store at nowhere"),
        (["gc", "-s", "nowhere"], "no memdb store at nowhere"),
    ],
)
def test_options_that_cannot_be_are_one_line_that_says_why(here, arguments, says):
    done = run(*arguments, cwd=here)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert says in done.stderr


@pytest.mark.slow
def test_a_bucket_is_reached_by_options_and_named_again_in_what_to_type_next(s3, tmp_path):
    url = f"s3://bucket/{tmp_path.name}/s.zarr"
    at = ["--endpoint-url", s3["endpoint_url"], "--storage-option", "key=k", "--storage-option", "secret=s"]
    made = run("init", "-s", url, *at, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert f"Next: memdb train --add 100 --store {url} --endpoint-url {s3['endpoint_url']}" in made.stderr
    shown = run("info", "-s", url, *at, "--cache-dir", tmp_path / "cache", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "0 in 0 blocks and 0 segments" in shown.stdout


@pytest.mark.parametrize("command", ["compact", "gc", "verify"])
def test_ctrl_c_says_what_it_left_behind(here, command, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(memdb.Database, command, interrupted)
    done = run(command, cwd=here)
    assert done.returncode == 130
    assert "Interrupted. " in done.stderr
