-- Pairs of a score table that are strong enough, by test example, then from the strongest. memdb fills in :strength:
-- the influence, minus it, or its absolute value.
SELECT * EXCLUDE (place)
FROM (
    SELECT *, row_number() OVER (PARTITION BY test_id ORDER BY :strength DESC, train_id) AS place
    FROM influence
    WHERE ($least::DOUBLE IS NULL OR :strength >= $least)
        AND ($memorized::DOUBLE IS NULL OR memorization >= $memorized)
        AND (same_class OR NOT $same_class)
)
WHERE $top::BIGINT IS NULL OR place <= $top
ORDER BY test_id, place
