-- What joins the pilots. Needs the packs bank, pharma and logistics.

-- Threat intelligence. kind: ip or domain. An indicator may be published long
-- after it was used.
CREATE SOURCE ioc (
  indicator TEXT, kind TEXT, ts TIMESTAMP,
  WATERMARK FOR ts AS ts - INTERVAL '24 hours'
) WITH (connector = 'generator', stream = 'ioc');

-- The hash that a closed log was anchored with, outside the system that wrote
-- it. log: its owner's pilot, a slash, its name.
CREATE SOURCE log_anchors (
  log TEXT, sha256 TEXT, ts TIMESTAMP,
  WATERMARK FOR ts AS ts - INTERVAL '2 hours'
) WITH (connector = 'generator', stream = 'log_anchors');

-- The hash that an auditor computed of it later.
CREATE SOURCE log_audits (
  log TEXT, sha256 TEXT, ts TIMESTAMP,
  WATERMARK FOR ts AS ts - INTERVAL '10 minutes'
) WITH (connector = 'generator', stream = 'log_audits');
