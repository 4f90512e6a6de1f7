-- Mean half-width of the memorization intervals, over the examples that have one.
SELECT avg(upper_end(score, centre, half_width) - lower_end(score, centre, half_width)) / 2
FROM (
    SELECT score(k_in, n_in, k_out, n_out) AS score,
        ac_centre(k_in, n_in, k_out, n_out, z) AS centre,
        ac_half_width(k_in, k_in, n_in, k_out, k_out, n_out, z) AS half_width
    FROM (
        SELECT n_in, n_out, k_in, n_correct - k_in AS k_out,
            interval_z($interval, $alpha, $fixed_z, n_in + n_out, 1, count(*) OVER ()) AS z
        FROM train_examples WHERE n_in > 0 AND n_out > 0
    )
)
