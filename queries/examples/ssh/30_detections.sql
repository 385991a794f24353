-- What asks for an answer.

-- Twenty failed passwords or more from one source.
CREATE DETECTION password_guessing WITH (severity = 'medium', entity = 'ip', attack = 'T1110') AS
SELECT ip, failures, users FROM failed_by_ip WHERE failures >= 20;

CREATE DETECTION break_in_attempt WITH (severity = 'medium', entity = 'ip', attack = 'T1110') AS
SELECT ip, warnings FROM break_in_warnings;

-- A login that succeeded after five failures or more from the same source. A
-- user who mistypes twice does not fire.
CREATE DETECTION success_after_failures WITH (severity = 'critical', entity = 'ip', attack = 'T1110') AS
SELECT a.ip, a.usr, a.ts, sum(f.times) AS failures
FROM (SELECT DISTINCT ts, usr, ip FROM accepted_logins) a
JOIN failed_passwords f ON f.ip = a.ip AND f.ts <= a.ts
GROUP BY a.ip, a.usr, a.ts
HAVING sum(f.times) >= 5;
