-- Pairs of a training example and a target: the body of the views `influence` (targets are test examples)
-- and `train_influence` (targets are training examples), and of the macro `influence_of(test_ids)`.
-- memdb fills in :target (the name of its columns), :targets (the relation), :relation (whose multiplier z
-- the variable of that name holds: it is the same for all pairs), and what differs between the
-- outcomes `correct` and `confidence`: :counted (the function that counts a pair, or sums p and its square),
-- :s and :q (the sums of the outcome and of its square in its result), :s_all and :q_all (the same over all
-- models), :own_s and :own_q (of the training example itself), :sums (the columns that show them).
--
-- Filters on constant ids reach the scans below the counting function: a pair is counted when it is asked
-- for. Other filters do not, so for many targets write influence_of([3, 4, 5]), not test_id IN (SELECT ...).
SELECT
    train_id, :target_id, train_label, :target_label,
    train_label = :target_label AS same_class,
    influence,
    lower_end(influence, centre, half_width) AS lo,
    upper_end(influence, centre, half_width) AS hi,
    n_in, n_out, :sums,
    s_in / nullif(n_in, 0) AS p_in,
    s_out / nullif(n_out, 0) AS p_out,
    memorization
FROM (
    SELECT *, score(s_in, n_in, s_out, n_out) AS influence,
        ac_centre(s_in, n_in, s_out, n_out, z) AS centre,
        ac_half_width(s_in, q_in, n_in, s_out, q_out, n_out, z) AS half_width
    FROM (
        SELECT *, :s AS s_in, :q AS q_in, s_all - :s AS s_out, q_all - :q AS q_out,
            getvariable('z_:relation')::DOUBLE AS z
        FROM (
            SELECT
                t.id AS train_id, target.id AS :target_id,
                t.label AS train_label, target.label AS :target_label,
                t.n_in, t.n_out, target.:s_all AS s_all, target.:q_all AS q_all,
                :counted(t.id, target.id) AS counted,
                score(t.:own_s, t.n_in, t.:s_all - t.:own_s, t.n_out) AS memorization
            FROM train_examples t CROSS JOIN :targets target
        )
    )
)
