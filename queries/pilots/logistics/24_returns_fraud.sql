-- L5, returns fraud: what came back weighs over a tenth more or less than what
-- was sent, or a customer has three or more refunds within thirty days.
--
-- Does not fire: exactly a tenth (another wrapping); two refunds, however often
-- told; three over more than thirty days; a refund for what was lost and never
-- weighed; two refunds of which one was corrected, or three of which one was
-- taken back. Refunds may arrive in any order.
--
-- Refunds count for sixty days, so that a finding lasts thirty at least, and are
-- kept for thirty more, in which a correction finds what it corrects.

CREATE MATERIALIZED VIEW recent_refunds AS
SELECT refund_id, usr, parcel, sent_grams, returned_grams, first_ts AS ts
FROM (
  SELECT refund_id, usr, parcel, sent_grams, returned_grams, min(ts) OVER (PARTITION BY refund_id) AS first_ts,
         row_number() OVER (PARTITION BY refund_id ORDER BY ts DESC, usr, parcel, sent_grams, returned_grams) AS number
  FROM refunds
  WHERE ts > watermark('refunds') - INTERVAL '90 days'
) told
WHERE number = 1
  AND usr IS NOT NULL
  AND first_ts > watermark('refunds') - INTERVAL '60 days';

CREATE DETECTION returns_fraud WITH (severity = 'medium', entity = 'usr', attack = 'T1657') AS
SELECT usr, coalesce(parcel, 'a parcel') || ' came back with ' || returned_grams || ' g instead of ' || sent_grams || ' g' AS reason
FROM recent_refunds
WHERE 10 * abs(returned_grams - sent_grams) > sent_grams
UNION ALL
SELECT DISTINCT usr, 'three refunds within thirty days' AS reason
FROM (
  SELECT usr, ts, lag(ts, 2) OVER (PARTITION BY usr ORDER BY ts, refund_id) AS third_last_ts
  FROM recent_refunds
) r
WHERE ts <= third_last_ts + INTERVAL '30 days';
