-- One row about the store's models.
SELECT
    count(*) AS n_models,
    count(DISTINCT segment) AS n_segments,
    count(*) FILTER (diverged) AS n_diverged,
    avg(seconds) AS seconds_per_model,
    avg(train_accuracy) AS train_accuracy,
    avg(out_accuracy) AS out_accuracy,
    avg(test_accuracy) AS test_accuracy
FROM models
