-- What ranking needs of pairs, of each kind that is equal in its counts once, in the order they come in. Registered
-- beforehand: found (n_in, n_out, k_in, and k_all, how many of all models are right). memdb fills in :arms.
SELECT
    score(k_in, n_in, k_out, n_out) AS influence,
    effect_se(:arms) AS effect_se, ac_z(:arms) AS ac_z, null_se(:arms) AS null_se
FROM (SELECT *, k_all - k_in AS k_out FROM found)
