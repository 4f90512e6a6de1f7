-- Pairs of near-duplicates with their scores and intervals, in order of place and target.
-- Registered beforehand: found, with the columns below; n_own_in and k_own_in count the models trained on the target,
-- NULL for test examples; n_shown of n_ranked scores were chosen. $interval, $alpha and $fixed_z say which intervals.
SELECT
    train_id, target_id, test_id, train_label, target_label, train_label = target_label AS same_class, found_by,
    score(k_in, n_in, k_out, n_out) AS influence,
    score_lo(k_in, n_in, k_out, n_out, z) AS lo,
    score_hi(k_in, n_in, k_out, n_out, z) AS hi,
    q_value, share, n_in, n_out, k_in, k_out, similarity, distance,
    CASE WHEN target_id IS NOT NULL AND score_lo(k_in, n_in, k_out, n_out, z) > 0 THEN train_id END AS hidden_by,
    score(k_own_in, n_own_in, k_in + k_out, n_in + n_out) AS memorization,
    score(k_own_in, n_own_in, k_out, n_out) AS pair_memorization,
    score_lo(k_own_in, n_own_in, k_out, n_out, own_z) AS pair_lo,
    score_hi(k_own_in, n_own_in, k_out, n_out, own_z) AS pair_hi,
    n_own_in, k_own_in
FROM (
    SELECT *,
        interval_z($interval, $alpha, $fixed_z, n_in + n_out, n_shown, n_ranked) AS z,
        interval_z($interval, $alpha, $fixed_z, n_own_in + n_out, n_shown, n_ranked) AS own_z
    FROM found
)
ORDER BY place, target_id  -- of a pair with a test example there is one row
