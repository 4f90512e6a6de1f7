-- Scores that were given, as comparisons take them: `given`, and the sums of both arms under an assumption, or NULL.
-- memdb fills in :score (the relation and its score) and :label.
SELECT
    train_id, label, n_in, n_out, (rate + given) * n_in AS s_in, (rate + given) * n_in AS q_in,
    rate * n_out AS s_out, rate * n_out AS q_out, given
FROM (
    SELECT train_id, :label AS label, :score AS given, $n_in::DOUBLE AS n_in, $n_out::DOUBLE AS n_out,
        widest_rate_out(:score, $n_in::DOUBLE, $n_out::DOUBLE) AS rate
    FROM :score
    WHERE :score IS NOT NULL
)
ORDER BY train_id
