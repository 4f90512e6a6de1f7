"""Recipes and data sets as newcomers write them: taken and right, or refused with what to do next."""

from __future__ import annotations

from attacks.harness import Place, case

BEGIN = """
import functools, os, sys, threading, warnings
import numpy as np
import memdb
x, y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 3
data = lambda: memdb.Dataset(x[:40], y[:40], x[40:], y[40:])
def right(data, masks, seeds, run):
    draws = np.random.default_rng(int(seeds[0]))
    return {"train/correct": draws.random((len(masks), 40)) < .7, "test/correct": draws.random((len(masks), 20)) < .7}
def tried(recipe, add=2, **options):
    try:
        db = memdb.init("s.zarr", dataset=data(), recipe=recipe, **options)
        return db, db.train(add=add, device="cpu")
    except memdb.MemdbError as error:
        print(type(error).__name__, error, error.hint)
        sys.exit(1)
"""
WRONG = {
    "None": "None",
    "a tuple": "(r['train/correct'], r['test/correct'])",
    "one axis": "{k: v[0] for k, v in r.items()}",
    "no axis": "{k: np.bool_(True) for k in r}",
    "floats": "{k: v.astype(float) for k, v in r.items()}",
    "integers": "{k: v.astype(int) for k, v in r.items()}",
    "predictions": "{k: v * 2 for k, v in r.items()}",
    "objects": "{k: v.astype(object) for k, v in r.items()}",
    "text": "{k: v.astype(str) for k, v in r.items()}",
    "sets swapped": "{'train/correct': r['test/correct'], 'test/correct': r['train/correct']}",
    "axes swapped": "{k: v.T for k, v in r.items()}",
    "the test set omitted": "{'train/correct': r['train/correct']}",
    "names with a typo": "{k.replace('/', '_'): v for k, v in r.items()}",
    "names that are numbers": "dict(enumerate(r.values()))",
    "one model more": "{k: np.concatenate([v, v]) for k, v in r.items()}",
    "no models": "{k: v[:0] for k, v in r.items()}",
    "a generator": "(v for v in r)",
    "a class": "dict",
    "an error": "{}['my_key']",
    "an exit": "sys.exit(3)",
    "an exit without a code": "exit()",
    "a keyboard's interrupt": "(_ for _ in ()).throw(BaseException('mine'))",
    "an error without a text": "(_ for _ in ()).throw(AssertionError)",
    "recursion": "(lambda f: f(f))(lambda f: f(f))",
}
for _name, _value in WRONG.items():

    @case("recipes", f"returns {_name}", seconds=30, leaves=True, says="TrainingError")
    def _(place: Place, value: str = _value) -> list[str]:
        return place.script(
            f"{BEGIN}def own(d, m, s, run):\n    r = right(d, m, s, run)\n    return {value}\ntried(own)\n"
        )


NAMELESS = {
    "a lambda": "lambda d, m, s, r: right(d, m, s, r)",
    "a closure": "(lambda k: lambda d, m, s, r: right(d, m, s, r))(1)",
    "an instance without options": "type('Own', (), {'__call__': lambda self, d, m, s, r: right(d, m, s, r)})()",
    "a partial of a lambda": "functools.partial(lambda d, m, s, r, lr=0: right(d, m, s, r), lr=.1)",
    "a partial with an object": "functools.partial(right, object())",
    "a bound method": "type('Own', (), {'go': lambda self, d, m, s, r: right(d, m, s, r)})().go",
    "a number": "5",
    "two arguments": "lambda d, m: None",
    "a class": "type('Own', (), {})",
}
for _name, _value in NAMELESS.items():

    @case("recipes", f"{_name} without a version", seconds=30, leaves=True, says="InvalidInputError")
    def _(place: Place, value: str = _value) -> list[str]:
        return place.script(f"{BEGIN}tried({value})\n")


TAKEN = {
    "lists of bool": (
        "def own(d, m, s, r):\n    return {k: v.tolist() for k, v in right(d, m, s, r).items()}\ntried(own)",
        "",
    ),
    "prints": ("def own(d, m, s, r):\n    print('loss')\n    return right(d, m, s, r)\ntried(own)", "loss"),
    "a partial": (
        (
            "def own(d, m, s, r, lr=0):\n    return right(d, m, s, r)\n"
            "db, _ = tried(functools.partial(own, lr=.5))\nprint(db.store.manifest.recipe.options)"
        ),
        "{'lr': 0.5}",
    ),
    "threads": (
        (
            "def own(d, m, s, r):\n    t = threading.Thread(target=print); t.start(); t.join()\n"
            "    return right(d, m, s, r)\ntried(own)"
        ),
        "",
    ),
    "forks": (
        (
            "def own(d, m, s, r):\n    pid = os.fork()\n    if not pid: os._exit(0)\n    os.waitpid(pid, 0)\n"
            "    return right(d, m, s, r)\ntried(own)"
        ),
        "",
    ),
    "probabilities as logits": (
        (
            "def own(d, m, s, r):\n    o = right(d, m, s, r)\n    return o | {k.replace('correct', 'logit_confidence'): "
            "np.where(v, .9, .1) for k, v in o.items()}\ntried(own)"
        ),
        "look like probabilities",
    ),
    "log-odds": (
        (
            "logits = np.random.default_rng(0).normal(size=(2, 5, 3))\n"
            "print('shape', memdb.log_odds(logits, np.zeros(5, int)).shape)"
        ),
        "shape (2, 5)",
    ),
    "imbalanced data": (
        (
            "y = (np.arange(60) % 10 == 0).astype(int)\nright_at = (y == 0) | (np.arange(60) % 20 == 0)\n"
            "def own(d, m, s, r):\n    return {'train/correct': np.tile(right_at[:40], (len(m), 1)), "
            "'test/correct': np.tile(right_at[40:], (len(m), 1))}\ndb, _ = tried(own)\n"
            "print(db.sql('SELECT count(*) FILTER (diverged) FROM models').fetchall())"
        ),
        "[(0,)]",
    ),
}
for _name, (_text, _said) in TAKEN.items():

    @case("recipes", _name, exits=(0,), seconds=30, leaves=True, says=_said)
    def _(place: Place, text: str = _text) -> list[str]:
        return place.script(f"{BEGIN}{text}\n")


DATA = {
    "objects": ("np.array([object() for _ in range(60)])", 1),
    "dicts": ("[{'ids': [i]} for i in range(60)]", 1),
    "text": ("[f'review {i}' for i in range(60)]", 0),
    "text of objects": ("np.array([f'review {i}' for i in range(60)], object)", 0),
    "bytes": ("[b'x' * i for i in range(60)]", (0, 1)),
    "token ids": ("[[i] * (i % 7 + 1) for i in range(60)]", 0),
    "ragged arrays": ("[np.arange(i % 5 + 1) for i in range(60)]", 0),
    "dates": ("np.arange('2020-01-01', '2020-03-01', dtype='datetime64[D]')[:60]", 0),
    "complex numbers": ("np.arange(60) * 1j", (0, 1)),
    "nothing": ("[None] * 60", 1),
    "records": ("np.zeros(60, [('a', int), ('b', float)])", 1),
    "records with objects": ("np.zeros(60, [('a', object)])", 1),
    "float16": ("x.astype(np.float16)", 0),
    "other bytes first": ("x.astype('>f8')", 0),
    "masked": ("np.ma.masked_array(x, x > 0)", 1),
    "sparse": ("__import__('scipy.sparse').sparse.csr_matrix(x)", 1),
    "not numbers": ("x * np.nan", 0),
    "functions": ("[lambda: 1] * 60", 1),
    "lists with themselves": ("[(l := []).append(l) or l for _ in range(60)]", 1),
}
for _name, (_value, _exits) in DATA.items():
    _codes = _exits if isinstance(_exits, tuple) else (_exits,)

    @case("recipes", f"data: {_name}", exits=_codes, seconds=30, leaves=True)
    def _(place: Place, value: str = _value) -> list[str]:
        return place.script(f"{BEGIN}try:\n    x = {value}\n    made = data()\nexcept memdb.MemdbError as error:\n    print(error)\n    sys.exit(1)\n"
                            "data = lambda: made\ntried(right)\n")  # fmt: skip


@case("recipes", "workers outside of `if __name__`", leaves=True, seconds=60, says="script.py, line")
def _(place: Place) -> list[str]:
    return place.script(f"{BEGIN}sys.path.insert(0, '.')\ndata = data()\ndef load(root=None): return data\n"
                        "try:\n    memdb.init('s.zarr', dataset='digits').train(add=2, workers=2)\n"
                        "except memdb.MemdbError as error:\n    print(error, error.hint)\n    sys.exit(1)\n")  # fmt: skip
