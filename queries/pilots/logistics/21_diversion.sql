-- L2, diversion: between two consecutive scans a parcel would have gone faster
-- than 130 km/h in a straight line: it was diverted, or its label copied; or it
-- was scanned off its region's corridor.
--
-- Does not fire: a fast van on the motorway; two devices at one gate, seconds
-- and some hundred metres apart (less than a minute counts as one, which also
-- keeps the division from zero); a scan that arrives after its successor (a
-- way with a stop left out is only slower); a scan that says no place, such as
-- one indoors: it is passed over; a scan as far away as a corridor goes, or of a
-- region that has none.
--
-- Off the corridor lasts a day, or until the corridor is drawn wider.

-- A corridor is all that lies within so many kilometres of one of its points.
-- The region is the part of a parcel's name before the dash.
CREATE TABLE corridors (region TEXT, point TEXT, lat DOUBLE, lon DOUBLE, km DOUBLE, PRIMARY KEY (region, point));
INSERT INTO corridors VALUES
  ('AMS', 'hub', 52.3105, 4.7683, 75),
  ('BRU', 'hub', 50.9010, 4.4844, 75),
  ('CGN', 'hub', 50.8659, 7.1427, 75),
  ('LIL', 'hub', 50.5633, 3.0869, 75);

-- Scans of the last day, and the points that are too far from them: of most
-- scans none, so that little is kept.
CREATE VIEW points_missed AS
SELECT parcel, device, ts, lat, lon, point, points, km
FROM (
  SELECT s.parcel, s.device, s.ts, s.lat, s.lon, c.point, c.points,
         12742 * asin(sqrt(least(1.0,
           power(sin(radians(s.lat - c.lat) / 2), 2)
           + cos(radians(c.lat)) * cos(radians(s.lat)) * power(sin(radians(s.lon - c.lon) / 2), 2)))) - c.km AS km
  FROM scans s
  JOIN (SELECT region, point, lat, lon, km, count(*) OVER (PARTITION BY region) AS points FROM corridors) c
    ON c.region = split_part(s.parcel, '-', 1)
  WHERE s.lat IS NOT NULL AND s.lon IS NOT NULL AND s.ts > watermark('scans') - INTERVAL '24 hours'
) d
WHERE km > 0;

CREATE DETECTION diversion WITH (severity = 'high', entity = 'parcel', attack = 'T0831') AS
WITH legs AS (
  SELECT parcel, device, ts, lat, lon,
         lag(ts) OVER (PARTITION BY parcel ORDER BY ts, device) AS prev_ts,
         lag(lat) OVER (PARTITION BY parcel ORDER BY ts, device) AS prev_lat,
         lag(lon) OVER (PARTITION BY parcel ORDER BY ts, device) AS prev_lon
  FROM scans
  WHERE lat IS NOT NULL AND lon IS NOT NULL
),
-- Great-circle distance on a sphere of 6371 km (haversine).
ways AS (
  SELECT parcel, device, ts,
         greatest(extract(epoch FROM ts) - extract(epoch FROM prev_ts), 60) / 3600 AS hours,
         12742 * asin(sqrt(least(1.0,
           power(sin(radians(lat - prev_lat) / 2), 2)
           + cos(radians(prev_lat)) * cos(radians(lat)) * power(sin(radians(lon - prev_lon) / 2), 2)))) AS km
  FROM legs
  WHERE prev_ts IS NOT NULL
)
SELECT DISTINCT parcel, device, ts, 'too fast' AS reason,
       CAST(round(km) AS BIGINT) AS km, CAST(round(km / hours) AS BIGINT) AS km_per_hour
FROM ways
WHERE km / hours > 130
UNION ALL
SELECT parcel, device, ts, 'off its corridor' AS reason, CAST(ceil(min(km)) AS BIGINT) AS km, NULL AS km_per_hour
FROM points_missed
GROUP BY parcel, device, ts, lat, lon, points
HAVING count(DISTINCT point) = points;
