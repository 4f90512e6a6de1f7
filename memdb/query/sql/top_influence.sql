-- Everything that a list of influences with one side fixed is chosen from: on one test example, of one training
-- example, or on one training example (excluding itself, whose score is its memorization).
-- memdb fills in :relation, :fixed (the column of the given id), :listed (of the other side), :arms.
SELECT * EXCLUDE (lo, hi), effect_se(:arms) AS effect_se, ac_z(:arms) AS ac_z, null_se(:arms) AS null_se
FROM :relation
WHERE :fixed = $id AND (NOT $same_class OR same_class) AND (:listed <> $id OR NOT $other_only)
