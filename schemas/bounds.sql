-- Intervals of rows that were ranked, in their order; :arms as memdb fills it in.
SELECT ac_lo(:arms, z) AS lo, ac_hi(:arms, z) AS hi
FROM (SELECT *, interval_z($interval, $alpha, $fixed_z, n_in + n_out, $n_shown, $n_ranked) AS z FROM ranked)
ORDER BY position
