-- Scores of two stores, example by example, and how far they agree. The tables `first` and `second` have the sums
-- of both arms of every training example, or the score as it was `given`, by a score table: its sums are NULL, or
-- those of an assumption. memdb fills in :score (the name of the score).
--
-- The interval of a difference goes from the lowest of one interval less the highest of the other to the reverse,
-- each of half the error: it holds whatever the two stores have in common.
WITH scored AS (
    SELECT
        a.train_id, a.label,
        coalesce(a.given, score(a.s_in, a.n_in, a.s_out, a.n_out)) AS a,
        coalesce(b.given, score(b.s_in, b.n_in, b.s_out, b.n_out)) AS b,
        a AS of_a, b AS of_b
    FROM first a JOIN second b USING (train_id)
    WHERE (a.given IS NOT NULL OR (a.n_in > 0 AND a.n_out > 0))
        AND (b.given IS NOT NULL OR (b.n_in > 0 AND b.n_out > 0))
),
ranked AS (
    SELECT *,
        row_number() OVER (ORDER BY a DESC, train_id) AS place_a, row_number() OVER (ORDER BY b DESC, train_id) AS place_b,
        rank() OVER (ORDER BY a) + (count(*) OVER (PARTITION BY a) - 1) / 2 AS rank_a,
        rank() OVER (ORDER BY b) + (count(*) OVER (PARTITION BY b) - 1) / 2 AS rank_b,
        row_number() OVER (ORDER BY abs(a - b) DESC, train_id) AS position
    FROM scored
),
agreement AS (
    SELECT
        count(*) AS n_compared, count(*) FILTER (a >= $threshold) AS n_above_a,
        count(*) FILTER (b >= $threshold) AS n_above_b,
        count(*) FILTER (a >= $threshold AND b >= $threshold)
            / nullif(count(*) FILTER (a >= $threshold OR b >= $threshold), 0) AS jaccard,
        count(*) FILTER (place_a <= $k AND place_b <= $k) / count(*) FILTER (place_a <= $k OR place_b <= $k)
            AS top_overlap,
        CASE WHEN stddev_pop(rank_a) > 0 AND stddev_pop(rank_b) > 0 THEN corr(rank_a, rank_b) END AS spearman,
        avg(a - b) AS mean_difference
    FROM ranked
)
SELECT
    train_id, label, a AS :score_a, b AS :score_b, a - b AS difference,
    CASE WHEN of_a.n_in + of_b.n_in IS NOT NULL THEN greatest(-2e0,
        ac_lo(of_a.s_in, of_a.q_in, of_a.n_in, of_a.s_out, of_a.q_out, of_a.n_out, z_a)
        - ac_hi(of_b.s_in, of_b.q_in, of_b.n_in, of_b.s_out, of_b.q_out, of_b.n_out, z_b)) END AS lo,
    CASE WHEN of_a.n_in + of_b.n_in IS NOT NULL THEN least(2e0,
        ac_hi(of_a.s_in, of_a.q_in, of_a.n_in, of_a.s_out, of_a.q_out, of_a.n_out, z_a)
        - ac_lo(of_b.s_in, of_b.q_in, of_b.n_in, of_b.s_out, of_b.q_out, of_b.n_out, z_b)) END AS hi,
    CASE WHEN of_a.given IS NULL THEN of_a.n_in END::INTEGER AS n_in_a,
    CASE WHEN of_a.given IS NULL THEN of_a.n_out END::INTEGER AS n_out_a,
    CASE WHEN of_b.given IS NULL THEN of_b.n_in END::INTEGER AS n_in_b,
    CASE WHEN of_b.given IS NULL THEN of_b.n_out END::INTEGER AS n_out_b,
    agreement.*
FROM (
    SELECT *,
        interval_z($interval, $alpha / 2, $fixed_z, of_a.n_in + of_a.n_out, least($k, n_compared), n_compared) AS z_a,
        interval_z($interval, $alpha / 2, $fixed_z, of_b.n_in + of_b.n_out, least($k, n_compared), n_compared) AS z_b
    FROM ranked, (SELECT n_compared FROM agreement)
    WHERE position <= $k
), agreement
ORDER BY position
