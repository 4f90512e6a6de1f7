-- Scores of pairs that were found by their sums, in the order they come in, and what ranking needs of each.
-- Registered beforehand: found (train_id, test_id, train_label, test_label, n_in, n_out, memorization, and the sums
-- of the outcome and of its square over the models that had the training example, s_in and q_in, and over all, s_all
-- and q_all). $z is the multiplier of the intervals; memdb fills in :sums, the columns that show the sums.
SELECT * EXCLUDE (centre, half_width),
    lower_end(influence, centre, half_width) AS lo,
    upper_end(influence, centre, half_width) AS hi
FROM (
    SELECT
        train_id, test_id, train_label, test_label, train_label = test_label AS same_class,
        score(s_in, n_in, s_out, n_out) AS influence,
        ac_centre(s_in, n_in, s_out, n_out, $z) AS centre,
        ac_half_width(s_in, q_in, n_in, s_out, q_out, n_out, $z) AS half_width,
        effect_se(s_in, q_in, n_in, s_out, q_out, n_out) AS effect_se,
        ac_z(s_in, q_in, n_in, s_out, q_out, n_out) AS ac_z,
        null_se(s_in, q_in, n_in, s_out, q_out, n_out) AS null_se,
        n_in, n_out, :sums,
        s_in / nullif(n_in, 0) AS p_in,
        s_out / nullif(n_out, 0) AS p_out,
        memorization
    FROM (SELECT *, s_all - s_in AS s_out, q_all - q_in AS q_out FROM found)
)
