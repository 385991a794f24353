-- The cascade as Grafana's node graph reads it, in two layers: organisations; and of what is reached, each part with
-- the findings at its root. An arrow leads from what fails to whom it reaches.

-- mainstat: milliseconds until it fails. secondarystat: euros that it costs until all is mended.
CREATE MATERIALIZED VIEW cascade_nodes AS
SELECT t.node AS id, t.name AS title, t.kind || ' of ' || t.organisation AS subtitle,
  t.after_ms AS mainstat, l.euros AS secondarystat,
  0.0 AS arc__finding,
  CASE WHEN t.after_ms = 0 THEN 1.0 ELSE 0.0 END AS arc__failed,
  CASE WHEN t.after_ms > 0 THEN 1.0 ELSE 0.0 END AS arc__failing,
  CAST(NULL AS TEXT) AS icon,
  t.organisation AS detail__organisation,
  t.hops AS detail__hops,
  r.step AS detail__restoration_step,
  a.assets AS detail__failed_assets_behind,
  n.value_per_hour AS detail__euros_per_hour,
  d.down_ms / 60000 AS detail__minutes_down
FROM times_to_impact t
JOIN nodes n ON n.id = t.node
LEFT JOIN affected a ON a.id = t.node
LEFT JOIN restoration_steps r ON r.node = t.node
LEFT JOIN down d ON d.node = t.node
LEFT JOIN process_losses l ON l.id = t.node
UNION ALL
SELECT f.detection AS id, f.detection AS title, f.severity || ': ' || f.findings || ' open' AS subtitle,
  CAST(NULL AS BIGINT) AS mainstat, CAST(NULL AS DOUBLE) AS secondarystat,
  1.0 AS arc__finding, 0.0 AS arc__failed, 0.0 AS arc__failing, 'bell' AS icon, f.organisation AS detail__organisation,
  CAST(NULL AS BIGINT) AS detail__hops, CAST(NULL AS BIGINT) AS detail__restoration_step,
  CAST(NULL AS BIGINT) AS detail__failed_assets_behind, CAST(NULL AS DOUBLE) AS detail__euros_per_hour,
  CAST(NULL AS BIGINT) AS detail__minutes_down
FROM (
  SELECT o.detection, o.severity, count(*) AS findings, min(split_part(x.node, '.', 1)) AS organisation
  FROM findings o
  JOIN (SELECT detection, min(node) AS node FROM failed_assets GROUP BY detection) x ON x.detection = o.detection
  GROUP BY o.detection, o.severity
) f;

-- mainstat: milliseconds that the target lasts without the source. The path on which the target fails is thick.
CREATE MATERIALIZED VIEW cascade_edges AS
SELECT g.group_id AS id, m.node AS source, g.node AS target, coalesce(g.buffer_ms, 0) AS mainstat,
  CASE WHEN p.node IS NULL THEN 1 ELSE 3 END AS thickness,
  CASE WHEN p.node IS NULL THEN 'gray' ELSE 'orange' END AS color
FROM model_groups g
JOIN model_members m ON m.group_id = g.group_id
JOIN times_to_impact s ON s.node = m.node
JOIN times_to_impact t ON t.node = g.node
LEFT JOIN impact_paths p ON p.node = g.node AND p.cause = m.node
UNION ALL
SELECT detection || ' in ' || node AS id, detection AS source, node AS target,
  CAST(NULL AS BIGINT) AS mainstat, 3 AS thickness, 'red' AS color
FROM failed_assets;

-- mainstat: euros per hour at risk. secondarystat: euros until all is mended. Arcs: parts of its nodes.
CREATE MATERIALIZED VIEW organisation_nodes AS
SELECT n.organisation AS id, n.organisation AS title, (n.failed + n.failing) || ' of ' || n.nodes || ' parts' AS subtitle,
  n.euros_per_hour AS mainstat, coalesce(l.euros, 0) AS secondarystat,
  CAST(n.failed AS DOUBLE) / n.nodes AS arc__failed,
  CAST(n.failing AS DOUBLE) / n.nodes AS arc__failing,
  CAST(n.nodes - n.failed - n.failing AS DOUBLE) / n.nodes AS arc__trusted,
  coalesce(l.misses_rto, 0) AS detail__processes_that_miss_their_rto,
  coalesce(l.reaches_mtpd, 0) AS detail__processes_that_reach_their_mtpd
FROM (
  SELECT split_part(n.id, '.', 1) AS organisation, count(*) AS nodes,
    count(*) FILTER (WHERE t.after_ms = 0) AS failed, count(*) FILTER (WHERE t.after_ms > 0) AS failing,
    sum(CASE WHEN t.node IS NULL THEN 0 ELSE n.value_per_hour END) AS euros_per_hour
  FROM nodes n LEFT JOIN times_to_impact t ON t.node = n.id
  GROUP BY split_part(n.id, '.', 1)
) n
LEFT JOIN organisation_losses l ON l.organisation = n.organisation;

-- mainstat: how many dependencies lead across; those that carry a failure make the arrow thick.
CREATE MATERIALIZED VIEW organisation_edges AS
SELECT e.source || ' to ' || e.target AS id, e.source, e.target, count(*) AS mainstat, count(e.reached) AS secondarystat,
  CASE WHEN count(e.reached) = 0 THEN 1 ELSE 3 END AS thickness,
  CASE WHEN count(e.reached) = 0 THEN 'gray' ELSE 'orange' END AS color
FROM (
  SELECT split_part(x.dst, '.', 1) AS source, split_part(x.src, '.', 1) AS target, t.node AS reached
  FROM cross_depends_on x LEFT JOIN times_to_impact t ON t.node = x.dst
) e
GROUP BY e.source, e.target;
