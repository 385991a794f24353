-- What joins the pilots. Needs the packs bank, pharma and logistics.

-- Threat intelligence. kind: ip or domain. An indicator may be published long
-- after it was used.
CREATE SOURCE ioc (
  indicator TEXT, kind TEXT, ts TIMESTAMP,
  WATERMARK FOR ts AS ts - INTERVAL '24 hours'
) WITH (connector = 'generator', stream = 'ioc');
