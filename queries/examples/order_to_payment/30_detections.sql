-- Orders against the process as it was drawn. The clock is the orders' own: the latest step shows how
-- far time has come.
CREATE DETECTION order_off_course WITH (severity = 'high', entity = 'case_id') AS
SELECT case_id, rule, state, activity, role, at, since
FROM violations(events, transitions, states, clock => (SELECT max(ts) AS now FROM steps));

-- How far each order is from a run of the process.
CREATE MATERIALIZED VIEW order_fitness AS
SELECT process, case_id, events, prefix_cost, cost, shortest, fitness
FROM conformance(events, transitions, states);

-- The process as a whole. Orders under way count with the steps that they lack.
CREATE MATERIALIZED VIEW process_fitness AS
SELECT process, count(*) AS orders, 1 - sum(cost) / CAST(sum(events + shortest) AS DOUBLE) AS fitness
FROM order_fitness
GROUP BY process;
