-- What the lines say. syslog folds equal lines into one ("message repeated 5
-- times: [ ... ]"), which stands for so many events.

CREATE VIEW sshd_messages AS
SELECT ts, pid,
       regexp_replace(message, '^message repeated \d+ times: \[ (.*)\].*$', '\1') AS message,
       coalesce(CAST(regexp_match(message, '^message repeated (\d+) times: ')[1] AS BIGINT), 1) AS times
FROM sshd
WHERE app = 'sshd';

-- A user's name is any text, so it ends at the last " from ".
CREATE VIEW failed_passwords AS
SELECT ts, match[1] AS usr, match[2] AS ip, times
FROM (
  SELECT ts, times,
         regexp_match(message, '^Failed password for (?:invalid user )?(.*) from (\S+) port \d+') AS match
  FROM sshd_messages
  WHERE message LIKE 'Failed password for %'
) m
WHERE match IS NOT NULL;

CREATE VIEW accepted_logins AS
SELECT ts, match[1] AS method, match[2] AS usr, match[3] AS ip
FROM (
  SELECT ts, regexp_match(message, '^Accepted (\S+) for (.*) from (\S+) port \d+') AS match
  FROM sshd_messages
  WHERE message LIKE 'Accepted %'
) m
WHERE match IS NOT NULL;

-- Failed passwords per source, and how many names it tried.
CREATE MATERIALIZED VIEW failed_by_ip AS
SELECT ip, sum(times) AS failures, count(DISTINCT usr) AS users
FROM failed_passwords
GROUP BY ip;

-- Names that do not exist here, and who asked for them.
CREATE MATERIALIZED VIEW invalid_users AS
SELECT match[1] AS usr, match[2] AS ip, sum(times) AS attempts
FROM (
  SELECT times, regexp_match(message, '^Invalid user (.*) from (\S+)') AS match
  FROM sshd_messages
  WHERE message LIKE 'Invalid user %'
) m
WHERE match IS NOT NULL
GROUP BY match[1], match[2];

-- Warnings "POSSIBLE BREAK-IN ATTEMPT!": the name and the address of a source
-- do not belong together. sshd has two wordings.
CREATE MATERIALIZED VIEW break_in_warnings AS
SELECT ip, sum(times) AS warnings
FROM (
  SELECT times,
         coalesce(regexp_match(message, '\[(\S+)\] failed - POSSIBLE BREAK-IN')[1],
                  regexp_match(message, '^Address (\S+) maps to .* - POSSIBLE BREAK-IN')[1]) AS ip
  FROM sshd_messages
  WHERE message LIKE '%POSSIBLE BREAK-IN ATTEMPT%'
) m
GROUP BY ip;
