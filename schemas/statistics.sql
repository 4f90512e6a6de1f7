-- The estimator and its intervals, once, for every command and for a user's own SQL.
-- For each arm: n models, s = sum of the outcome, q = sum of its square (for 0/1 outcomes s = q = k).
-- Casts come first: DuckDB reads 1.96 as DECIMAL, and products of those overflow.

-- Difference in means; NULL where an arm is empty.
CREATE MACRO score(s_in, n_in, s_out, n_out) AS
    s_in::DOUBLE / nullif(n_in, 0) - s_out::DOUBLE / nullif(n_out, 0);

-- Generalised Agresti-Caffo, AC(z): z^2/4 successes and as many failures are added to each arm.
CREATE MACRO ac_mean(s, n, z) AS
    (s::DOUBLE + z::DOUBLE * z / 4) / (n + z::DOUBLE * z / 2);
CREATE MACRO ac_variance(s, q, n, z) AS
    greatest(0e0, (q::DOUBLE + z::DOUBLE * z / 4) / (n + z::DOUBLE * z / 2) - pow(ac_mean(s, n, z), 2))
    / (n + z::DOUBLE * z / 2);
CREATE MACRO ac_half_width(s_in, q_in, n_in, s_out, q_out, n_out, z) AS
    z::DOUBLE * sqrt(ac_variance(s_in, q_in, n_in, z) + ac_variance(s_out, q_out, n_out, z));
CREATE MACRO ac_centre(s_in, n_in, s_out, n_out, z) AS ac_mean(s_in, n_in, z) - ac_mean(s_out, n_out, z);
-- Clipped, always holding the score, NULL with it. Statements give both ends the parts: DuckDB copies a macro's
-- arguments wherever they stand in it, and planning a statement of many copies takes longer than running it.
CREATE MACRO lower_end(score, centre, half_width) AS
    CASE WHEN score IS NOT NULL THEN greatest(-1e0, least(score, centre - half_width)) END;
CREATE MACRO upper_end(score, centre, half_width) AS
    CASE WHEN score IS NOT NULL THEN least(1e0, greatest(score, centre + half_width)) END;
CREATE MACRO ac_lo(s_in, q_in, n_in, s_out, q_out, n_out, z) AS lower_end(
    score(s_in, n_in, s_out, n_out), ac_centre(s_in, n_in, s_out, n_out, z),
    ac_half_width(s_in, q_in, n_in, s_out, q_out, n_out, z));
CREATE MACRO ac_hi(s_in, q_in, n_in, s_out, q_out, n_out, z) AS upper_end(
    score(s_in, n_in, s_out, n_out), ac_centre(s_in, n_in, s_out, n_out, z),
    ac_half_width(s_in, q_in, n_in, s_out, q_out, n_out, z));

-- Multiplier that stays valid when one looks after every model and stops when one likes: the Robbins
-- normal mixture in the asymptotic form of Waudby-Smith et al. (2024), tightest near 400 models.
CREATE MACRO anytime_tau(n_models, alpha) AS
    n_models::DOUBLE / 400
    * (-2 * ln(alpha::DOUBLE) + ln(1 - 2 * ln(alpha::DOUBLE) - pow(alpha::DOUBLE, 2)) - pow(alpha::DOUBLE, 2));
CREATE MACRO anytime_z(n_models, alpha) AS
    sqrt((1 + 1 / anytime_tau(nullif(n_models, 0), alpha))
         * (ln(1 + anytime_tau(n_models, alpha)) - 2 * ln(alpha::DOUBLE)));

-- The multiplier of each kind of interval. fixed_z is the normal quantile at 1 - alpha / 2.
CREATE MACRO interval_z(kind, alpha, fixed_z, n_models, n_shown, n_ranked) AS
    CASE WHEN kind = 'fixed' THEN fixed_z::DOUBLE
         ELSE anytime_z(n_models, alpha::DOUBLE * CASE kind
            WHEN 'anytime' THEN 1e0
            WHEN 'selected' THEN n_shown / nullif(n_ranked, 0)
            WHEN 'simultaneous' THEN 1e0 / nullif(n_ranked, 0)
         END)
    END;

-- What a 0/1 outcome needs: successes instead of sums.
CREATE MACRO score_lo(k_in, n_in, k_out, n_out, z) AS ac_lo(k_in, k_in, n_in, k_out, k_out, n_out, z);
CREATE MACRO score_hi(k_in, n_in, k_out, n_out, z) AS ac_hi(k_in, k_in, n_in, k_out, k_out, n_out, z);

-- What ranking a list needs of every candidate. Standard error of the score with each arm's own variance.
CREATE MACRO effect_se(s_in, q_in, n_in, s_out, q_out, n_out) AS sqrt(
    greatest(0e0, q_in::DOUBLE / nullif(n_in, 0) - pow(s_in::DOUBLE / nullif(n_in, 0), 2)) / nullif(n_in, 0)
    + greatest(0e0, q_out::DOUBLE / nullif(n_out, 0) - pow(s_out::DOUBLE / nullif(n_out, 0), 2)) / nullif(n_out, 0));
-- The score of AC(2), one right and one wrong model added to each arm, in its standard errors.
CREATE MACRO ac_z(s_in, q_in, n_in, s_out, q_out, n_out) AS
    (ac_mean(s_in, n_in, 2) - ac_mean(s_out, n_out, 2))
    / sqrt(ac_variance(s_in, q_in, n_in, 2) + ac_variance(s_out, q_out, n_out, 2));
-- Standard deviation of the score over all ways to deal the same outcomes out to the two arms.
CREATE MACRO null_se(s_in, q_in, n_in, s_out, q_out, n_out) AS sqrt(
    greatest(0e0, (q_in::DOUBLE + q_out) - pow(s_in::DOUBLE + s_out, 2) / nullif(n_in + n_out, 0))
    / nullif(n_in + n_out - 1, 0) * (1e0 / nullif(n_in, 0) + 1e0 / nullif(n_out, 0)));
