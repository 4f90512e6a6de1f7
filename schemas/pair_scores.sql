-- Scores of pairs that were found by their counts, in the order they come in. Registered beforehand: found
-- (train_id, test_id, train_label, test_label, n_in, n_out, n_correct, k_in, memorization).
-- $n_shown of $n_ranked pairs were chosen by their rank: what the intervals `selected` and `simultaneous` need.
SELECT
    train_id, test_id, train_label, test_label,
    train_label = test_label AS same_class,
    score(k_in, n_in, k_out, n_out) AS influence,
    score_lo(k_in, n_in, k_out, n_out, z) AS lo,
    score_hi(k_in, n_in, k_out, n_out, z) AS hi,
    n_in, n_out, k_in, k_out,
    k_in / nullif(n_in, 0) AS p_in,
    k_out / nullif(n_out, 0) AS p_out,
    memorization
FROM (
    SELECT *, n_correct - k_in AS k_out,
        interval_z($interval, $alpha, $fixed_z, n_in + n_out, $n_shown, $n_ranked) AS z
    FROM found
)
