-- Scores of pairs that were found by their counts, in the order they come in, and what ranking needs of each.
-- Registered beforehand: found (train_id, test_id, train_label, test_label, n_in, n_out, n_correct, k_in,
-- memorization). $z is the multiplier of the intervals.
SELECT * EXCLUDE (centre, half_width),
    lower_end(influence, centre, half_width) AS lo,
    upper_end(influence, centre, half_width) AS hi
FROM (
    SELECT
        train_id, test_id, train_label, test_label, train_label = test_label AS same_class,
        score(k_in, n_in, k_out, n_out) AS influence,
        ac_centre(k_in, n_in, k_out, n_out, $z) AS centre,
        ac_half_width(k_in, k_in, n_in, k_out, k_out, n_out, $z) AS half_width,
        effect_se(k_in, k_in, n_in, k_out, k_out, n_out) AS effect_se,
        ac_z(k_in, k_in, n_in, k_out, k_out, n_out) AS ac_z,
        null_se(k_in, k_in, n_in, k_out, k_out, n_out) AS null_se,
        n_in, n_out, k_in, k_out,
        k_in / nullif(n_in, 0) AS p_in,
        k_out / nullif(n_out, 0) AS p_out,
        memorization
    FROM (SELECT *, n_correct - k_in AS k_out FROM found)
)
