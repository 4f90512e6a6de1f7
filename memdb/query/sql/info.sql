-- One row about how tight the intervals of the memorization scores are.
SELECT
    count(memorization) AS n_scored,
    count(*) FILTER (memorization >= 0.25) AS n_memorized_25,
    count(*) FILTER (memorization >= 0.5) AS n_memorized_50,
    avg(hi - lo ORDER BY train_id) / 2 AS mean_half_width
FROM memorization
