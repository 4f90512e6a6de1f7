-- The relations that questions and `memdb sql` read. Registered beforehand: tables models, train_examples
-- (id, key, label, class_name, n_in, n_out, and of the outcome `correct` n_correct, k_in; of `confidence` s_all,
-- q_all, s_in, q_in) and test_examples (id, key, label, class_name, and n_correct, or s_all, q_all); functions of
-- (train_id, target_id) over the models that had the first example in their subset: k_in_train and k_in_test,
-- how many were correct on the second, or sums_in_train and sums_in_test, the sums s of p and q of its square.

CREATE VIEW memorization AS
SELECT
    train_id, label,
    memorization,
    lower_end(memorization, centre, half_width) AS lo,
    upper_end(memorization, centre, half_width) AS hi,
    n_in, n_out, :sums,
    s_in / nullif(n_in, 0) AS p_in,
    s_out / nullif(n_out, 0) AS p_out
FROM (
    SELECT *, score(s_in, n_in, s_out, n_out) AS memorization,
        ac_centre(s_in, n_in, s_out, n_out, z) AS centre,
        ac_half_width(s_in, q_in, n_in, s_out, q_out, n_out, z) AS half_width
    FROM (
        SELECT id AS train_id, label, n_in, n_out,
            :own_s AS s_in, :own_q AS q_in, :s_all - :own_s AS s_out, :q_all - :own_q AS q_out,
            getvariable('z_memorization')::DOUBLE AS z
        FROM train_examples
    )
);
