"""Run an operation on a copy of a store, once for every file operation it makes, and fail or die at that one.

python -m support.dying TEMPLATE OUT OPERATION kill|fail FIRST STEP

For n = FIRST, FIRST + STEP, ... the copy is OUT/n. The exit status of the child that worked on it goes to
OUT/n.status: 0 done, 3 an error of memdb's, -9 killed, anything else a bug. It ends with the first n that
the operation does not reach.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import traceback
from datetime import timedelta
from pathlib import Path

from memdb.errors import MemdbError
from memdb.storage import open_storage
from memdb.store import Store
from memdb.store.maintenance import compact as compaction
from memdb.store.maintenance import gc as cleaning
from support.storing import batch

CHANGES = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir"}


def commit(store):
    store.commit(*batch(store, [70, 71]))


def compact(store):
    compaction.compact(store)


def gc(store):
    doomed = cleaning.garbage(store, timedelta(0), alone=True)
    list(cleaning.remove(store, doomed))


class Fate:
    """Counts the file operations below a folder, and strikes at the n-th."""

    def __init__(self, folder, left, how):
        self.folder, self.left, self.how = str(folder), left, how

    def listen(self):
        os.fsync = lambda descriptor: self.step("fsync")
        sys.addaudithook(self.hear)

    def hear(self, event, arguments):
        writes = event in CHANGES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if writes and str(arguments[0]).startswith(self.folder):
            self.step(event)

    def step(self, event):
        self.left -= 1
        if self.left == -1:
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(5, f"Input/output error, injected at {event}")


def live(folder, operation, left, how):
    """Run the operation in this process, which is a child's; return its exit status."""
    fate = Fate(folder, left, how)
    try:
        store = Store.open(open_storage(str(folder)))
        fate.listen()
        globals()[operation](store)
    except MemdbError:
        return 3
    except BaseException:  # noqa: BLE001 - the parent reports whatever it is
        traceback.print_exc()
        return 4
    return 0 if fate.left < 0 else 9


def main():
    template, out, operation, how, first, step = sys.argv[1:]
    left = int(first)
    while True:
        folder = Path(out) / str(left)
        shutil.copytree(template, folder)
        child = os.fork()
        if child == 0:
            os._exit(live(folder, operation, left, how))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        folder.with_suffix(".status").write_text(str(0 if status == 9 else status))
        if status == 9:
            return
        left += int(step)


if __name__ == "__main__":
    main()
