-- How far the scores of two halves of the models agree. The table `halves` has, for each way to split the models
-- and each training example, the models in and out of both halves, a and b, and their sums.
WITH known AS (
    SELECT *,
        row_number() OVER (PARTITION BY split ORDER BY a DESC, train_id) AS rank_a,
        row_number() OVER (PARTITION BY split ORDER BY b DESC, train_id) AS rank_b
    FROM (
        SELECT split, train_id,
            score(s_in_a, n_in_a, s_out_a, n_out_a) AS a, score(s_in_b, n_in_b, s_out_b, n_out_b) AS b
        FROM halves
    )
    WHERE a IS NOT NULL AND b IS NOT NULL
),
counted AS (
    SELECT
        CASE WHEN stddev_pop(a) > 0 AND stddev_pop(b) > 0 THEN corr(a, b) END AS r,
        count(*) FILTER (a >= $threshold) AS n_a, count(*) FILTER (b >= $threshold) AS n_b,
        count(*) FILTER (a >= $threshold AND b >= $threshold) AS n_both
    FROM (SELECT DISTINCT split FROM halves) LEFT JOIN known USING (split)
    GROUP BY split
),
lists AS (
    SELECT k, count(*) FILTER (rank_a <= k AND rank_b <= k) AS n_both, count(*) AS n_ranked
    FROM known, (SELECT unnest($lists::BIGINT[]) AS k)
    GROUP BY split, k
)
SELECT 'correlation' AS measure, NULL::DOUBLE AS at, r AS value FROM counted
UNION ALL
SELECT 'spearman_brown', NULL, CASE WHEN r > -1 THEN 2 * r / (1 + r) END FROM counted
UNION ALL
SELECT 'confirmed', $threshold, (n_both / nullif(n_a, 0) + n_both / nullif(n_b, 0)) / 2 FROM counted
UNION ALL
SELECT * FROM (SELECT 'top_overlap', k, n_both / (2 * k - n_both) FROM lists WHERE k <= n_ranked ORDER BY k)
