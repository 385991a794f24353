-- The pilots as data flow diagrams, what protects them, and what their detections see; and what runs on them. The
-- assets are those of the cascade.

INSERT INTO elements (element, kind, asset, zone, personal_data, is_log) VALUES
  ('bank.customer',         'external_entity', NULL,                     'internet',     true,  NULL),
  ('bank.clerk',            'external_entity', NULL,                     'branch',       true,  NULL),
  ('bank.checkout',         'process',         'bank.checkout-pages',    'bank dmz',     true,  NULL),
  ('bank.gateway',          'process',         'bank.card-gateway',      'bank dmz',     true,  NULL),
  ('bank.sign-in',          'process',         'bank.directory',         'bank dmz',     true,  NULL),
  ('bank.refund-desk',      'process',         'bank.back-office',       'branch',       true,  NULL),
  ('bank.cash-machine',     'process',         'bank.atm-fleet',         'street',       true,  NULL),
  ('bank.orders',           'data_store',      'bank.order-db',          'bank core',    true,  false),
  ('bank.ledger',           'data_store',      'bank.ledger-db',         'bank core',    true,  true),
  ('pharma.administrator',  'external_entity', NULL,                     'internet',     true,  NULL),
  ('pharma.patient',        'external_entity', NULL,                     'internet',     true,  NULL),
  ('pharma.logger',         'external_entity', 'pharma.loggers',         'road',         false, NULL),
  ('pharma.control',        'process',         'pharma.portal',          'pharma dmz',   false, NULL),
  ('pharma.intake',         'process',         'pharma.sensor-gateway',  'pharma dmz',   false, NULL),
  ('pharma.shop',           'process',         'pharma.web-shop',        'pharma dmz',   true,  NULL),
  ('pharma.packs',          'data_store',      'pharma.pack-registry',   'pharma core',  false, true),
  ('logistics.recipient',   'external_entity', NULL,                     'street',       true,  NULL),
  ('logistics.archive',     'data_store',      'logistics.scan-archive', 'carrier core', true,  true),
  ('logistics.weighing',    'process',         'logistics.returns-desk', 'hub',          true,  NULL),
  ('logistics.declaration', 'process',         'logistics.customs-link', 'carrier dmz',  true,  NULL);

INSERT INTO elements (element, kind, asset, source, target, personal_data) VALUES
  ('bank.page',           'data_flow', 'bank.checkout-pages',    'bank.checkout',        'bank.customer',      false),
  ('bank.card-payment',   'data_flow', 'bank.card-gateway',      'bank.customer',        'bank.gateway',       true),
  ('bank.credentials',    'data_flow', 'bank.directory',         'bank.customer',        'bank.sign-in',       true),
  ('bank.posting',        'data_flow', 'bank.ledger-db',         'bank.gateway',         'bank.ledger',        true),
  ('bank.refund',         'data_flow', 'bank.back-office',       'bank.clerk',           'bank.refund-desk',   true),
  ('bank.authorisation',  'data_flow', 'bank.atm-fleet',         'bank.ledger',          'bank.cash-machine',  true),
  ('pharma.reading',      'data_flow', 'pharma.loggers',         'pharma.logger',        'pharma.intake',      false),
  ('pharma.set-point',    'data_flow', 'pharma.portal',          'pharma.administrator', 'pharma.control',     false),
  ('pharma.sale',         'data_flow', 'pharma.web-shop',        'pharma.patient',       'pharma.shop',        true),
  ('pharma.verification', 'data_flow', 'pharma.pack-registry',   'pharma.shop',          'pharma.packs',       false),
  ('logistics.return',    'data_flow', 'logistics.returns-desk', 'logistics.recipient',  'logistics.weighing', true);

-- Each lane's reefers, each hub's scanners and vans.
INSERT INTO elements (element, kind, asset, zone, personal_data)
SELECT 'pharma.reefer-' || lane, 'process', 'pharma.reefers-' || lane, 'road', false
FROM (VALUES ('bsl'), ('dub'), ('lej'), ('vie')) AS l (lane);
INSERT INTO elements (element, kind, asset, zone, personal_data)
SELECT 'logistics.' || what || '-' || hub, 'process', 'logistics.' || asset || '-' || hub, zone, true
FROM (VALUES ('ams'), ('bru'), ('cgn'), ('lil')) AS h (hub)
CROSS JOIN (VALUES ('scanner', 'hub', 'hub'), ('van', 'fleet', 'road')) AS w (what, asset, zone);
INSERT INTO elements (element, kind, asset, source, target, personal_data)
SELECT 'logistics.scan-' || hub, 'data_flow', 'logistics.hub-' || hub, 'logistics.scanner-' || hub, 'logistics.archive', true
FROM (VALUES ('ams'), ('bru'), ('cgn'), ('lil')) AS h (hub);

INSERT INTO safeguards VALUES
  ('bank.page',           'confidentiality', 'TLS'),
  ('bank.card-payment',   'confidentiality', 'TLS'),
  ('bank.card-payment',   'integrity',       'signed by the card'),
  ('bank.credentials',    'confidentiality', 'TLS'),
  ('bank.credentials',    'integrity',       'TLS'),
  ('bank.posting',        'confidentiality', 'a line of its own'),
  ('bank.authorisation',  'integrity',       'signed by the host'),
  ('bank.ledger',         'availability',    'three replicas'),
  ('bank.ledger',         'confidentiality', 'encrypted at rest'),
  ('bank.ledger',         'policy_and_consent_compliance', 'kept for as long as the law says'),
  ('bank.cash-machine',   'non_repudiation', 'camera'),
  ('pharma.set-point',    'confidentiality', 'TLS'),
  ('pharma.set-point',    'integrity',       'TLS'),
  ('pharma.sale',         'confidentiality', 'TLS'),
  ('pharma.sale',         'integrity',       'TLS'),
  ('pharma.patient',      'content_awareness', 'told at the sale'),
  ('pharma.verification', 'integrity',       'signed by the maker'),
  ('logistics.archive',   'availability',    'two sites'),
  ('logistics.recipient', 'content_awareness', 'told with the label');

INSERT INTO detection_coverage (detection, method, category, element) VALUES
  ('card_testing',     'STRIDE', 'information_disclosure', 'bank.gateway'),
  ('account_takeover', 'STRIDE', 'spoofing',               'bank.customer'),
  ('account_takeover', 'STRIDE', 'elevation_of_privilege', 'bank.sign-in'),
  ('process_bypass',   'STRIDE', 'tampering',              'bank.orders'),
  ('web_skimmer',      'STRIDE', 'tampering',              'bank.checkout'),
  ('web_skimmer',      'STRIDE', 'tampering',              'bank.page'),
  ('insider_refund',   'STRIDE', 'elevation_of_privilege', 'bank.refund-desk'),
  ('insider_refund',   'STRIDE', 'tampering',              'bank.refund'),
  ('atm_jackpotting',  'STRIDE', 'tampering',              'bank.cash-machine'),
  ('atm_jackpotting',  'STRIDE', 'elevation_of_privilege', 'bank.cash-machine'),
  ('silent_sensor',    'STRIDE', 'denial_of_service',      'pharma.intake'),
  ('silent_sensor',    'STRIDE', 'denial_of_service',      'pharma.reading'),
  ('tampered_logger',  'STRIDE', 'tampering',              'pharma.reading'),
  ('tampered_logger',  'STRIDE', 'spoofing',               'pharma.logger'),
  ('unknown_logger',   'STRIDE', 'spoofing',               'pharma.logger'),
  ('falsified_pack',   'STRIDE', 'tampering',              'pharma.packs'),
  ('restricted_sale',  'STRIDE', 'spoofing',               'pharma.patient'),
  ('restricted_sale',  'STRIDE', 'elevation_of_privilege', 'pharma.shop'),
  ('returns_fraud',    'STRIDE', 'tampering',              'logistics.return'),
  ('reefer_sabotage',  'STRIDE', 'elevation_of_privilege', 'pharma.control'),
  ('reefer_sabotage',  'STRIDE', 'spoofing',               'pharma.administrator'),
  ('log_tampering',    'STRIDE', 'tampering',              'bank.ledger'),
  ('log_tampering',    'STRIDE', 'tampering',              'logistics.archive'),
  ('log_tampering',    'STRIDE', 'repudiation',            'pharma.control');
INSERT INTO detection_coverage (detection, method, category, element)
SELECT d.detection, 'STRIDE', d.category, e.element
FROM elements e
JOIN (VALUES
  ('temperature_excursion', 'denial_of_service', 'pharma.reefer-'),
  ('reading_outside',       'denial_of_service', 'pharma.reefer-'),
  ('sudden_change',         'tampering',         'pharma.reefer-'),
  ('rogue_scanner',         'spoofing',          'logistics.scanner-'),
  ('diversion',             'tampering',         'logistics.van-'),
  ('skipped_custody',       'tampering',         'logistics.van-'),
  ('false_delivery',        'repudiation',       'logistics.van-')) AS d (detection, category, prefix)
  ON starts_with(e.element, d.prefix);

-- What runs where, what a scanner found there, and CISA's rows of February 2025 about it.
INSERT INTO asset_products VALUES
  ('bank.checkout-pages',    'JQuery', 'JQuery'),
  ('pharma.portal',          'Apache', 'Log4j2'),
  ('logistics.customs-link', 'Oracle', 'WebLogic Server');
INSERT INTO asset_vulnerabilities VALUES
  ('bank.checkout-pages',    'CVE-2020-11023'),
  ('logistics.customs-link', 'CVE-2020-2883'),
  ('pharma.web-shop',        'CVE-2014-3566');
INSERT INTO cvss_vectors VALUES
  ('CVE-2020-11023', 'CVSS:3.1/AV:N/AC:L/PR:N/UI:R/S:C/C:L/I:L/A:N'),
  ('CVE-2020-2883',  'CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H'),
  ('CVE-2014-3566',  'CVSS:3.1/AV:N/AC:H/PR:N/UI:R/S:U/C:L/I:N/A:N');
INSERT INTO kev VALUES
  ('CVE-2020-11023', 'JQuery', 'JQuery', 'JQuery Cross-Site Scripting (XSS) Vulnerability', '2025-01-23',
   'JQuery contains a persistent cross-site scripting (XSS) vulnerability. When passing maliciously formed, untrusted input enclosed in HTML tags, JQuery''s DOM manipulators can execute untrusted code in the context of the user''s browser.',
   'Apply mitigations per vendor instructions or discontinue use of the product if mitigations are unavailable.', '2025-02-13', 'Unknown'),
  ('CVE-2020-2883', 'Oracle', 'WebLogic Server', 'Oracle WebLogic Server Unspecified Vulnerability', '2025-01-07',
   'Oracle WebLogic Server, a product within the Fusion Middleware suite, contains an unspecified vulnerability exploitable by an unauthenticated attacker with network access via IIOP or T3.',
   'Apply mitigations per vendor instructions or discontinue use of the product if mitigations are unavailable.', '2025-01-28', 'Unknown'),
  ('CVE-2021-44228', 'Apache', 'Log4j2', 'Apache Log4j2 Remote Code Execution Vulnerability', '2021-12-10',
   'Apache Log4j2 contains a vulnerability where JNDI features do not protect against attacker-controlled JNDI-related endpoints, allowing for remote code execution.',
   'For all affected software assets for which updates exist, the only acceptable remediation actions are: 1) Apply updates; OR 2) remove affected assets from agency networks. Temporary mitigations using one of the measures provided at https://www.cisa.gov/uscert/ed-22-02-apache-log4j-recommended-mitigation-measures are only acceptable until updates are available.',
   '2021-12-24', 'Known');
