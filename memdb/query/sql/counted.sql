-- Scores of pairs, or of examples, that were counted outside, in the order they come in, and what ranking needs.
-- Registered beforehand: counted. memdb fills in :first and :last (columns that lists have besides), :score, :arms.
SELECT :first,
    score(k_in, n_in, k_out, n_out) AS :score,
    n_in, n_out, k_in, k_out,
    k_in / nullif(n_in, 0) AS p_in,
    k_out / nullif(n_out, 0) AS p_out,
    effect_se(:arms) AS effect_se, ac_z(:arms) AS ac_z, null_se(:arms) AS null_se:last
FROM counted
