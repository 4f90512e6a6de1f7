-- Everything that a list of memorization scores is chosen from. memdb fills in :arms.
SELECT * EXCLUDE (lo, hi), effect_se(:arms) AS effect_se, ac_z(:arms) AS ac_z, null_se(:arms) AS null_se
FROM memorization
WHERE $label IS NULL OR label = $label
