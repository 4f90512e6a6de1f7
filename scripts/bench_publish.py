"""What does publishing cost, beside the search that finds the same lists, and beside another checkout?

CPU seconds of whole processes that take turns on one store: ``memdb pairs --top 256`` and ``memdb publish``.

    python scripts/bench_publish.py
    python scripts/bench_publish.py --store memdb.zarr --against ../before

Without a store, one of 4,000 models, 50,000 training and 10,000 test examples is made (synthetic_store.py). Expect
minutes. Target: publishing takes at most 2 times the search.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from bench_queries import made
from bench_startup import ROOT, cpu_seconds, of, told

TARGET = 2.0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", help="publish this store")
    parser.add_argument("--against", type=Path, metavar="DIR", help="another checkout to compare with")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = options.store or made(Path(folder) / "store.zarr", [])
        ratio = 0.0
        for number in range(options.rounds):
            out = Path(folder) / f"pairs-{number}.parquet"
            search = cpu_seconds(of(ROOT, ["pairs", "--top", "256", "--store", store, "-o", str(out)]))
            print(f"{search:8.1f} CPU seconds  memdb pairs --top 256", flush=True)
            for checkout in (options.against, ROOT):
                if checkout is not None:
                    copy = str(Path(folder) / f"copy-{number}-{checkout is ROOT}")
                    ratio = cpu_seconds(of(checkout, ["publish", copy, "--store", store])) / search
                    print(
                        f"{ratio * search:8.1f} CPU seconds  memdb publish, {checkout}: {ratio:.1f} times",
                        flush=True,
                    )
        return told(f"publishing within {TARGET:g} times the search", ratio, TARGET)


if __name__ == "__main__":
    sys.exit(main())
