-- One row about the store's models; sums go in one order, so that they are the same to the last digit.
SELECT
    count(*) AS n_models,
    count(DISTINCT segment) AS n_segments,
    count(*) FILTER (diverged) AS n_diverged,
    coalesce(list(model_id ORDER BY model_id) FILTER (diverged), []) AS diverged,
    avg(seconds ORDER BY model_id) AS seconds_per_model,
    avg(train_accuracy ORDER BY model_id) AS train_accuracy,
    avg(out_accuracy ORDER BY model_id) AS out_accuracy,
    avg(test_accuracy ORDER BY model_id) AS test_accuracy
FROM models
