-- Where this gatherer lost sight, and what is open now.
--   psql -d kalshi_ts -f sql/queries/gatherer/gaps.sql
SELECT channel, ended_by, count(*) AS stretches, moment(max(covered_to)) AS last_time,
       max(detail) AS for_instance
FROM coverage
WHERE log_seq > (SELECT head - 100000 FROM logs WHERE name = 'coverage') AND ended_by <> 'continues'
GROUP BY 1, 2
ORDER BY stretches DESC;

SELECT channel, count(*) AS open_stretches, moment(min(covered_from)) AS oldest
FROM coverage_open
GROUP BY channel
ORDER BY channel;
