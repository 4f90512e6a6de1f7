-- The sums behind the memorization of every training example, named alike for both outcomes. memdb fills in
-- :own_s and :own_q (sums of the outcome and of its square over the models that had the example), :s_all and
-- :q_all (over all models).
SELECT
    id AS train_id, label, n_in, n_out,
    :own_s::DOUBLE AS s_in, :own_q::DOUBLE AS q_in,
    (:s_all - :own_s)::DOUBLE AS s_out, (:q_all - :own_q)::DOUBLE AS q_out
FROM train_examples
ORDER BY id
