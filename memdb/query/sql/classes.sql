-- One row a class, the hardest to learn first. p_out of the relation memorization, the rate over the models that
-- had not seen the example, is the consistency score. memdb fills in :s_all (the totals of an example).
SELECT
    row_number() OVER (ORDER BY consistency NULLS LAST, label) AS difficulty,
    label, class_name, consistency, train_rate, test_rate, memorization, n_memorized, n_train, n_test, n_scored
FROM (
    SELECT
        label, any_value(class_name) AS class_name,
        avg(p_out) AS consistency, avg(p_in) AS train_rate, avg(memorization) AS memorization,
        count(*) FILTER (memorization >= $threshold) AS n_memorized,
        count(*) AS n_train, count(memorization) AS n_scored
    FROM memorization JOIN (SELECT id AS train_id, class_name FROM train_examples) USING (train_id)
    GROUP BY label
)
LEFT JOIN (
    SELECT label, avg(:s_all / nullif($n_models, 0)) AS test_rate, count(*) AS n_test FROM test_examples GROUP BY label
) USING (label)
ORDER BY difficulty
