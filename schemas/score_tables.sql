-- The relations of a score table: scores that came without the models behind them, so without counts. Registered
-- beforehand: tables models, train_examples and test_examples (id, key, label, class_name), given_memorization
-- (train_id, memorization) and given_influence (train_id, test_id, influence). memdb fills in :n_in and :n_out:
-- NULL, or how many models the user assumes behind every score.
--
-- Rates are not known. Of all pairs of rates with the difference that was given, those with the largest variance
-- are taken, so that an interval under an assumption is at least as wide as that of the true rates.

CREATE MACRO widest_rate_out(d, n_in, n_out) AS
    greatest(greatest(0e0, -d), least(least(1e0, 1 - d),
        ((1 - 2 * d) / n_in + 1 / n_out) / (2 * (1 / n_in + 1 / n_out))));
-- NULL without an assumption: least() and greatest() pass over NULLs.
CREATE MACRO assumed_lo(d, rate, n_in, n_out, z) AS CASE WHEN z IS NOT NULL THEN lower_end(
    d, ac_centre((rate + d) * n_in, n_in, rate * n_out, n_out, z),
    ac_half_width((rate + d) * n_in, (rate + d) * n_in, n_in, rate * n_out, rate * n_out, n_out, z)) END;
CREATE MACRO assumed_hi(d, rate, n_in, n_out, z) AS CASE WHEN z IS NOT NULL THEN upper_end(
    d, ac_centre((rate + d) * n_in, n_in, rate * n_out, n_out, z),
    ac_half_width((rate + d) * n_in, (rate + d) * n_in, n_in, rate * n_out, rate * n_out, n_out, z)) END;

CREATE VIEW memorization AS
SELECT
    train_id, label, memorization,
    assumed_lo(memorization, rate, :n_in, :n_out, z) AS lo,
    assumed_hi(memorization, rate, :n_in, :n_out, z) AS hi,
    NULL::INTEGER AS n_in, NULL::INTEGER AS n_out, NULL::INTEGER AS k_in, NULL::INTEGER AS k_out,
    NULL::DOUBLE AS p_in, NULL::DOUBLE AS p_out
FROM (
    SELECT train_id, label, memorization, getvariable('z_memorization')::DOUBLE AS z,
        widest_rate_out(memorization, :n_in, :n_out) AS rate
    FROM (SELECT id AS train_id, label FROM train_examples) LEFT JOIN given_memorization USING (train_id)
);

CREATE VIEW influence AS
SELECT
    train_id, test_id, train_label, test_label, train_label = test_label AS same_class, influence,
    assumed_lo(influence, rate, :n_in, :n_out, z) AS lo,
    assumed_hi(influence, rate, :n_in, :n_out, z) AS hi,
    NULL::INTEGER AS n_in, NULL::INTEGER AS n_out, NULL::INTEGER AS k_in, NULL::INTEGER AS k_out,
    NULL::DOUBLE AS p_in, NULL::DOUBLE AS p_out, memorization
FROM (
    SELECT *, getvariable('z_influence')::DOUBLE AS z, widest_rate_out(influence, :n_in, :n_out) AS rate
    FROM given_influence
    JOIN (SELECT id AS train_id, label AS train_label FROM train_examples) USING (train_id)
    JOIN (SELECT id AS test_id, label AS test_label FROM test_examples) USING (test_id)
    LEFT JOIN given_memorization USING (train_id)
);

CREATE VIEW train_influence AS
SELECT * RENAME (test_id AS target_id, test_label AS target_label) FROM influence WHERE false;

CREATE MACRO influence_of(test_ids) AS TABLE
    SELECT * FROM influence WHERE test_id IN (SELECT unnest(test_ids));
