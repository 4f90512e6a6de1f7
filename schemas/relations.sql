-- The relations that questions and `memdb sql` read. Registered beforehand: tables models, train_examples
-- (id, key, label, class_name, n_in, n_out, n_correct, k_in) and test_examples (id, key, label, class_name,
-- n_correct); functions k_in_train(train_id, target_id) and k_in_test(train_id, test_id), which count the
-- models that had the first example in their subset and were correct on the second.

CREATE VIEW memorization AS
SELECT
    id AS train_id,
    label,
    score(k_in, n_in, k_out, n_out) AS memorization,
    score_lo(k_in, n_in, k_out, n_out, z) AS lo,
    score_hi(k_in, n_in, k_out, n_out, z) AS hi,
    n_in, n_out, k_in, k_out,
    k_in / nullif(n_in, 0) AS p_in,
    k_out / nullif(n_out, 0) AS p_out
FROM (
    SELECT *, n_correct - k_in AS k_out,
        view_z(n_in + n_out, getvariable('n_scored')) AS z
    FROM train_examples
);
