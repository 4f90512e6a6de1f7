-- The k highest memorization scores, each with an interval that knows it was chosen out of all ranked.
WITH candidates AS MATERIALIZED (
    SELECT * EXCLUDE (lo, hi) FROM memorization WHERE $label IS NULL OR label = $label
), shown AS (
    SELECT *, (SELECT count(memorization) FROM candidates) AS n_ranked
    FROM candidates ORDER BY memorization DESC NULLS LAST, train_id LIMIT $k
), ranked AS (
    SELECT *, interval_z($interval, $alpha, $fixed_z, n_in + n_out, least($k, n_ranked), n_ranked) AS z
    FROM shown
)
SELECT
    train_id, label, memorization,
    score_lo(k_in, n_in, k_out, n_out, z) AS lo,
    score_hi(k_in, n_in, k_out, n_out, z) AS hi,
    n_in, n_out, k_in, k_out, p_in, p_out
FROM ranked ORDER BY memorization DESC NULLS LAST, train_id
