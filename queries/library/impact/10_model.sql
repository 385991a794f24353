-- Impact: what outages cost, now and if; which counter-measures would have helped, and which to take.
-- Times are milliseconds since an incident began, so that nothing changes only because time passes.
--
-- How much a control helps. It prevents what it answers in surface · effectiveness of the cases; several against one
-- finding leave (1 − a)(1 − b) of them. Of findings that are prevented in different parts of the cases, the greater part
-- includes the lesser: what gets past the better defence gets past the worse. All that is saved or averted is the
-- expected value: each stretch of cases in which the same is prevented is played through, and counts by its part.
--
-- Fill the tables with INSERT, UPDATE and DELETE. Beside other packs, name this one in "needs" of their tidegate.toml,
-- and say where their rows come from: CREATE OR REPLACE VIEW model_outages AS …, and likewise model_nodes, model_groups,
-- model_members, model_suppositions and model_horizon, each with the columns that it has here.

-- Everything that can fail, from assets to processes. Only processes cost: what a service costs is
-- what its processes do not get. late_per_hour counts from rto_ms on, fixed_loss once mtpd_ms is reached.
CREATE TABLE impact_nodes (
  node TEXT PRIMARY KEY,
  level TEXT,               -- asset, service or process
  org TEXT,
  restart_ms BIGINT,        -- NULL: it is up again at once
  loss_per_hour DOUBLE,     -- of processes; NULL for all others, or it counts twice
  late_per_hour DOUBLE,
  rto_ms BIGINT,            -- NULL: it is never late
  mtpd_ms BIGINT,           -- NULL: it is bearable for ever
  fixed_loss DOUBLE,
  weight DOUBLE             -- in the resilience; NULL: 1
);

-- A node needs so many of a group's members (NULL: all), and lasts buffer_ms without.
CREATE TABLE impact_groups (group_id TEXT PRIMARY KEY, node TEXT, need BIGINT, buffer_ms BIGINT);
CREATE TABLE impact_members (group_id TEXT, node TEXT, delay_ms BIGINT, PRIMARY KEY (group_id, node));

-- What is or was down by itself, and the finding that says so. ends NULL: not over yet.
CREATE TABLE incident_outages (
  incident TEXT, finding TEXT, node TEXT, starts BIGINT, ends BIGINT,
  PRIMARY KEY (incident, finding, node, starts)
);

-- What if: INSERT a node that fails in a scenario, and read its loss beside the incidents'. besides: the
-- incident that goes on meanwhile; NULL: none.
CREATE TABLE hypothetical_outages (
  scenario TEXT, besides TEXT, node TEXT, starts BIGINT, ends BIGINT,
  PRIMARY KEY (scenario, node, starts)
);

-- Counter-measures. cost: a year's; surface and effectiveness: parts of 1, NULL: all of it.
CREATE TABLE controls (control TEXT PRIMARY KEY, cost DOUBLE, surface DOUBLE, effectiveness DOUBLE, name TEXT);
-- The findings whose outages a control prevents.
CREATE TABLE control_prevents (control TEXT, finding TEXT, PRIMARY KEY (control, finding));
-- Controls that are tried together, beside those that found_bundles finds where several findings reach one node: two to
-- eight against them, of those the fifty smallest bundles of an incident.
CREATE TABLE control_bundles (bundle TEXT, control TEXT, PRIMARY KEY (bundle, control));
CREATE TABLE control_exclusions (control TEXT, other TEXT, PRIMARY KEY (control, other));

-- One row: what a year is expected to cost without a control, what the infrastructure is worth in a year, and what
-- counter-measures may cost in a year. Without it no control is ranked, and without a budget none recommended.
CREATE TABLE risk_appetite (id BIGINT PRIMARY KEY, annual_loss DOUBLE, infrastructure_value DOUBLE, budget DOUBLE);

CREATE VIEW model_nodes AS
SELECT node, level, org, restart_ms, loss_per_hour, late_per_hour, rto_ms, mtpd_ms, fixed_loss, weight FROM impact_nodes;

CREATE VIEW model_groups AS SELECT group_id, node, need, buffer_ms FROM impact_groups;

CREATE VIEW model_members AS SELECT group_id, node, delay_ms FROM impact_members;

CREATE VIEW model_outages AS SELECT incident, finding, node, starts, ends FROM incident_outages;

CREATE VIEW model_suppositions AS SELECT scenario, besides, node, starts, ends FROM hypothetical_outages;

-- How far the cascade is followed from the beginning of an incident: a week. It bounds how long a cascade goes round, so it
-- is a constant and no row of a table: CREATE OR REPLACE VIEW model_horizon AS SELECT … says another.
CREATE VIEW model_horizon AS SELECT 604800000 AS horizon_ms;
