-- If one asset failed, for each of them: how many nodes go with it, and what an hour of that costs.

CREATE MATERIALIZED VIEW asset_losses AS
SELECT scenario AS asset, nodes, loss AS loss_per_hour
FROM blast_radius(
  (SELECT node AS scenario, node FROM model_nodes WHERE level = 'asset'),
  model_groups,
  model_members,
  (SELECT node, loss_per_hour AS loss FROM model_nodes WHERE loss_per_hour IS NOT NULL));

-- Whom exactly, and of which organisation.
CREATE MATERIALIZED VIEW asset_reach AS
SELECT w.scenario AS asset, w.node, n.level, n.org
FROM what_if((SELECT node AS scenario, node FROM model_nodes WHERE level = 'asset'), model_groups, model_members) w
JOIN model_nodes n ON n.node = w.node;

CREATE MATERIALIZED VIEW asset_organisations AS
SELECT asset, org, count(*) AS nodes FROM asset_reach GROUP BY asset, org;
