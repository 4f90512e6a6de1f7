"""Real MNIST goes through: set MEMDB_TEST_DATA to a folder that torchvision reads MNIST from."""

from __future__ import annotations

import pytest

import memdb

pytestmark = pytest.mark.realdata


def test_two_models_of_real_mnist(real_data, tmp_path):
    with memdb.init(
        str(tmp_path / "m.zarr"), "mnist", data_root=str(real_data), recipe_options={"epochs": 1}
    ) as db:
        assert [item.n_examples for item in db.store.manifest.sets] == [60_000, 10_000]
        db.train(add=2, data_root=str(real_data))
        (accuracy,) = db.info().project("test_accuracy").fetchall()[0]
        assert accuracy > 0.93
        assert len(db.top_influence(test_id=42, k=5).fetchall()) == 5
