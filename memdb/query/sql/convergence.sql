-- One score after each of some numbers of models. The table `looks` has the sums of both arms; memdb fills in
-- :score (the name of the score) and :sums (the columns that show them).
SELECT
    n_models,
    score(s_in, n_in, s_out, n_out) AS :score,
    ac_lo(s_in, q_in, n_in, s_out, q_out, n_out, fixed) AS fixed_lo,
    ac_hi(s_in, q_in, n_in, s_out, q_out, n_out, fixed) AS fixed_hi,
    ac_lo(s_in, q_in, n_in, s_out, q_out, n_out, anytime) AS anytime_lo,
    ac_hi(s_in, q_in, n_in, s_out, q_out, n_out, anytime) AS anytime_hi,
    n_in, n_out, :sums
FROM (
    SELECT *,
        interval_z('fixed', $alpha, $fixed_z, n_models, 1, 1) AS fixed,
        interval_z('anytime', $alpha, $fixed_z, n_models, 1, 1) AS anytime
    FROM looks
)
ORDER BY n_models
