-- The counts behind the influence of every training example on one test example.
SELECT * RENAME (train_label AS label) FROM influence WHERE test_id = $test_id ORDER BY train_id
