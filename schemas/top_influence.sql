-- The k strongest influences with one side fixed: on one test example, of one training example, or on one
-- training example (itself left out: that score is its memorization).
-- memdb fills in :relation, :fixed (the column of the given id), :listed (of the other side), :target.
WITH candidates AS MATERIALIZED (
    SELECT * EXCLUDE (lo, hi) FROM :relation
    WHERE :fixed = $id AND (NOT $same_class OR same_class) AND (:listed <> $id OR NOT $other_only)
), shown AS (
    SELECT *, (SELECT count(influence) FROM candidates) AS n_ranked,
        CASE $direction WHEN 'helps' THEN influence WHEN 'hurts' THEN -influence ELSE abs(influence) END AS strength
    FROM candidates ORDER BY strength DESC NULLS LAST, :listed LIMIT $k
), ranked AS (
    SELECT *, interval_z($interval, $alpha, $fixed_z, n_in + n_out, least($k, n_ranked), n_ranked) AS z
    FROM shown
)
SELECT
    train_id, :target_id, train_label, :target_label, same_class, influence,
    score_lo(k_in, n_in, k_out, n_out, z) AS lo,
    score_hi(k_in, n_in, k_out, n_out, z) AS hi,
    n_in, n_out, k_in, k_out, p_in, p_out, memorization
FROM ranked ORDER BY strength DESC NULLS LAST, :listed
