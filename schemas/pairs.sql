-- Pairs of a training example and a target: the body of the views `influence` (targets are test examples)
-- and `train_influence` (targets are training examples), and of the macro `influence_of(test_ids)`.
-- memdb fills in :target (the name of its columns), :targets (the relation), :counts (the function).
--
-- Filters on constant ids reach the scans below the counting function: a pair is counted when it is asked
-- for. Other filters do not, so for many targets write influence_of([3, 4, 5]), not test_id IN (SELECT ...).
SELECT
    train_id, :target_id, train_label, :target_label,
    train_label = :target_label AS same_class,
    score(k_in, n_in, k_out, n_out) AS influence,
    score_lo(k_in, n_in, k_out, n_out, z) AS lo,
    score_hi(k_in, n_in, k_out, n_out, z) AS hi,
    n_in, n_out, k_in, k_out,
    k_in / nullif(n_in, 0) AS p_in,
    k_out / nullif(n_out, 0) AS p_out,
    memorization
FROM (
    SELECT *, n_correct - k_in AS k_out, view_z(n_in + n_out, n_pairs) AS z
    FROM (
        SELECT
            t.id AS train_id, target.id AS :target_id, t.label AS train_label, target.label AS :target_label,
            t.n_in, t.n_out, target.n_correct, :counts(t.id, target.id) AS k_in,
            score(t.k_in, t.n_in, t.n_correct - t.k_in, t.n_out) AS memorization,
            getvariable('n_scored') * getvariable('n_:target') AS n_pairs
        FROM train_examples t CROSS JOIN :targets target
    )
)
