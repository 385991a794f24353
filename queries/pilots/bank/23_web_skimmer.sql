-- B4, web skimmer: a checkout page serves a script whose hash the release
-- manifest did not have by then.
--
-- Found at once, and withdrawn when word of the release comes late. Does not
-- fire: the release before the last, out of a cache. A released hash under
-- another script's name is found; so is one released only afterwards.
--
-- A finding, and so the roll-back of its page, lasts a day.

CREATE DETECTION web_skimmer WITH (severity = 'critical', entity = 'page', attack = 'T1056.003') AS
SELECT h.page, h.script, h.sha256, min(h.ts) AS since
FROM page_hashes h
WHERE h.ts > watermark('page_hashes') - INTERVAL '24 hours'
  AND NOT EXISTS (
    SELECT 1 FROM releases r
    WHERE r.script = h.script AND r.sha256 = h.sha256 AND r.ts <= h.ts)
GROUP BY h.page, h.script, h.sha256;
