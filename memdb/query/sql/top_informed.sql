-- The influences that rank first by their predictions with one side fixed, NULLs last.
-- memdb fills in :fixed (the column of the given id), :listed (of the other side), :key (what they rank by).
SELECT *, count(informed) OVER () AS n_ranked
FROM influence
WHERE :fixed = $id AND (NOT $same_class OR same_class)
ORDER BY :key NULLS LAST, :listed
LIMIT $k
