-- Pairs with test examples and their calibrated predictions: the body of `influence` and `influence_of` where
-- the estimator is `informed`. memdb fills in their body in `pairs.sql`. predicted(train_id, test_id) is the
-- prediction f and the variance tau^2 of the truth about it; `variance` is that of the raw influence, from the
-- accuracy on the test example with half a correct and half a wrong model added.
SELECT
    train_id, test_id, train_label, test_label, same_class, influence, informed,
    if(informed IS NULL, NULL, greatest(-1e0, informed - half_width)) AS lo,
    if(informed IS NULL, NULL, least(1e0, informed + half_width)) AS hi,
    n_in, n_out, k_in, k_out, p_in, p_out, memorization
FROM (
    SELECT *,
        predicted.prediction + share * (influence - predicted.prediction) AS informed,
        getvariable('z_informed')::DOUBLE * sqrt(share * variance) AS half_width
    FROM (
        SELECT *, predicted.spread / (predicted.spread + variance) AS share
        FROM (
            SELECT *,
                predicted(train_id, test_id) AS predicted,
                (k_in + k_out + 0.5e0) / (n_in + n_out + 1e0) AS accuracy,
                accuracy * (1e0 - accuracy) * (1e0 / nullif(n_in, 0) + 1e0 / nullif(n_out, 0)) AS variance
            FROM (:pairs)
        )
    )
)
