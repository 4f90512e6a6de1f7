-- One row about the store's models and how tight the intervals of their memorization scores are.
SELECT
    (SELECT count(*) FROM models) AS n_models,
    (SELECT count(DISTINCT segment) FROM models) AS n_segments,
    (SELECT count(*) FILTER (diverged) FROM models) AS n_diverged,
    (SELECT coalesce(list(model_id ORDER BY model_id) FILTER (diverged), []) FROM models) AS diverged,
    (SELECT avg(seconds) FROM models) AS seconds_per_model,
    (SELECT avg(train_accuracy) FROM models) AS train_accuracy,
    (SELECT avg(out_accuracy) FROM models) AS out_accuracy,
    (SELECT avg(test_accuracy) FROM models) AS test_accuracy,
    count(memorization) AS n_scored,
    count(*) FILTER (memorization >= 0.25) AS n_memorized_25,
    count(*) FILTER (memorization >= 0.5) AS n_memorized_50,
    avg(hi - lo) / 2 AS mean_half_width
FROM memorization
