"""Models of a document: in columns if they are as memdb writes them, one by one if not, always the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from memdb.errors import WrongFormatError
from memdb.format.segment import ModelInfo, Models, Segment

FIRST = ModelInfo(
    "1" * 32, 1, 7, 0.5, "2026-01-01", 0.75, 0.5, None, diverged=False, device="cpu", host="here"
)
SECOND = replace(FIRST, model_id="2" * 32, store_seed=7, out_accuracy=None, versions={"torch": "2.15"})


def document(*items):
    segment = Segment(
        "20260101T000000000Z-0123456789ab", "0" * 32, "0" * 64, (FIRST, SECOND), "0.1.0", {}, {}
    )
    return {**segment.to_document(), "models": list(items), "n_models": len(items)}


def parsed(*items):
    return Segment.from_document(document(*items), "here")


def test_models_in_columns_are_those_that_were_written():
    found = parsed(FIRST.to_document(), SECOND.to_document())
    assert isinstance(found.models, Models)
    assert found.model_ids == (FIRST.model_id, SECOND.model_id)
    assert tuple(found.models) == (FIRST, SECOND)
    assert found.models[1:] == (SECOND,)


def test_models_that_others_wrote_are_the_same():
    item = {**FIRST.to_document(), "seconds": 3, "seed": str(2**64 - 1)}
    del item["out_accuracy"]
    found = parsed(item, SECOND.to_document())
    assert not isinstance(found.models, Models)
    assert found.models == (replace(FIRST, seconds=3.0, seed=2**64 - 1, out_accuracy=None), SECOND)
    assert found.model_ids == (FIRST.model_id, SECOND.model_id)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_id", "0" * 31), ("seed", "1x"), ("subset_size", -1), ("seconds", -0.5), ("seconds", float("inf")),
        ("trained_at", 3), ("train_accuracy", 1.5), ("diverged", 0), ("host", None), ("versions", {"a": 1}),
        ("store_seed", None),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_model_is_said_with_its_place(field, value):
    with pytest.raises(WrongFormatError, match=rf"models\[1\]\.{field} is "):
        parsed(FIRST.to_document(), {**SECOND.to_document(), field: value})
