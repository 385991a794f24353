-- L2, diversion: between two consecutive scans a parcel would have gone faster
-- than 130 km/h in a straight line: it was diverted, or its label copied.
--
-- Does not fire: a fast van on the motorway; two devices at one gate, seconds
-- and some hundred metres apart (less than a minute counts as one, which also
-- keeps the division from zero); a scan that arrives after its successor (a
-- way with a stop left out is only slower); a scan that says no place, such as
-- one indoors: it is passed over.

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
SELECT DISTINCT parcel, device, ts,
       CAST(round(km) AS BIGINT) AS km, CAST(round(km / hours) AS BIGINT) AS km_per_hour
FROM ways
WHERE km / hours > 130;
