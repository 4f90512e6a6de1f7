-- Mean half-width of the memorization intervals, over the examples that have one.
SELECT avg(hi - lo) / 2 FROM (
    SELECT
        score_lo(k_in, n_in, n_correct - k_in, n_out, z) AS lo,
        score_hi(k_in, n_in, n_correct - k_in, n_out, z) AS hi
    FROM (
        SELECT *, interval_z($interval, $alpha, $fixed_z, n_in + n_out, 1, count(*) OVER ()) AS z
        FROM train_examples WHERE n_in > 0 AND n_out > 0
    )
)
