-- Intervals of rows that were ranked, in their order; :arms as memdb fills it in.
SELECT lower_end(score, centre, half_width) AS lo, upper_end(score, centre, half_width) AS hi
FROM (
    SELECT position, score(:s_in, n_in, :s_out, n_out) AS score,
        ac_centre(:s_in, n_in, :s_out, n_out, $z) AS centre, ac_half_width(:arms, $z) AS half_width
    FROM ranked
)
ORDER BY position
