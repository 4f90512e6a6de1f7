"""The commands by name: none waits for the imports of another, and their list waits for none."""

from __future__ import annotations

import importlib

COMMANDS = {  # by their modules, each with the first sentence of its help
    "query": {
        "info": "Say what is in a store, how well its models do and how tight its intervals are.",
        "top-memorized": "List the training examples that the models get right only if they saw them.",
        "top-influence": "List the strongest influences on, or of, one example.",
        "score": "Show one score with everything behind it: a memorization, or the influence on one example.",
        "sql": "Ask in SQL, over the relations of the store; files, network and settings are out of reach.",
    },
    "planning": {
        "plan": "Say how many models a goal takes, how many are missing, and how long it takes to "
        "train them.",
        "convergence": "Show how a score settled: its estimate and intervals after 10, 20, 50, 100, ...",
        "reliability": "Say how well two random halves of the models agree, on memorization or on "
        "the influences on an example.",
    },
    "analyze": {
        "classes": "List the classes, the hardest to learn first.",
        "class-influence": "Show the mean influence of each class's training examples on each class's test "
        "examples.",
        "compare": "Say how well two stores of one data set agree, and list the examples on which "
        "they differ most.",
    },
    "combine": {
        "update": "Move to the newest snapshot of the store that this one extends.",
        "merge": "Bring the models of several stores together in --store, which is created if it is absent.",
    },
    "maintain": {
        "compact": "Gather segments into blocks of up to 1,024 models, and number the result.",
        "gc": "Remove what no reader or writer can need any more.",
        "verify": "Check every object and every count of a store against what was written.",
        "retract": "Retract models, for good: they stay in the store and count nowhere.",
        "cache": "Show or clear the local cache of remote stores.",
    },
    "train": {
        "init": "Create a store of a data set and a recipe, without models.",
        "train": "Train models on random subsets and add them to the store.",
        "demo": "Make a store of digits in this folder, train a few hundred models and show what they tell.",
    },
    "pairs": {
        "pairs": "List the pairs of training and test examples that are strong enough, out of all there are.",
    },
    "duplicates": {
        "duplicates": "Find near-duplicates within the training set, and between training and test set.",
    },
    "interop": {
        "import": "Import somebody's runs, or scores that they published, into a store, created if absent.",
        "export": "Write what the store knows as files that other people's code reads.",
        "membership": "Run a membership-inference attack (LiRA) against the store's own models.",
    },
    "attribution": {
        "lds": "Grade attribution scores by the linear datamodeling score, and say how much better any could "
        "be.",
        "frontier": "Show what few models are good for, judged by the others of the store.",
    },
    "share": {
        "publish": "Write a frozen copy of a store that others can query in place, from a bucket or "
        "any web server.",
        "pull": "Copy a published store; every object is checked by its sha256, and what is already "
        "there is kept.",
    },
    "look": {
        "report": "Write one HTML file that shows the store: open it in a browser, or send it to somebody.",
        "view": "Show a store in the browser: the page of `memdb report`, with the lists of every example.",
    },
    "show": {
        "show": "Show an example: its picture, its score, and the examples that it helps and hurts most.",
        "gallery": "Show a gallery of examples, as Feldman and Zhang (2020) do in figures 2 and 3.",
        "label-errors": "List the training examples whose label is most likely wrong.",
    },
    "experiment": {
        "experiment": "Train models to answer one question: `removal`.",
    },
}


def load(command: str | None = None) -> None:
    """Import the module of a command; all of them if none has it, since it may be close to another's name."""
    for name in [name for name, texts in COMMANDS.items() if command in texts] or COMMANDS:
        importlib.import_module(f"memdb.cli.{name}")
