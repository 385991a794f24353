-- Raw lines of an OpenSSH server's log, as syslog writes them (RFC 3164):
--   Dec 10 06:55:46 LabSZ sshd[24200]: Invalid user webmaster from 173.234.31.186
-- LOG names the file.

CREATE SOURCE sshd (
  ts TIMESTAMP, host TEXT, app TEXT, pid BIGINT, message TEXT,
  WATERMARK FOR ts AS ts - INTERVAL '1 minute'
) WITH (connector = 'file', path = '${LOG}', format = 'text', preset = 'syslog_rfc3164');
