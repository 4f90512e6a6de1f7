-- Intervals at any numbers of models, in the order of the rows: each has its own multiplier. The table `ranked`
-- has the sums of both arms, which need not be whole numbers.
SELECT lower_end(score, centre, half_width) AS lo, upper_end(score, centre, half_width) AS hi
FROM (
    SELECT position, score(s_in, n_in, s_out, n_out) AS score,
        ac_centre(s_in, n_in, s_out, n_out, z) AS centre,
        ac_half_width(s_in, q_in, n_in, s_out, q_out, n_out, z) AS half_width
    FROM (
        SELECT *, interval_z($interval, $alpha, $fixed_z, n_in + n_out, $n_shown, $n_ranked) AS z FROM ranked
    )
)
ORDER BY position
