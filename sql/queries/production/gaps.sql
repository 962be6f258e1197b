-- What nobody saw, and why gatherers lost sight.
--   psql -d kalshi_prod -f sql/queries/production/gaps.sql
--
-- A time without trades is no gap: markets sleep. A gap is a time in which no gatherer says that it
-- listened. Stretches are written when they end, at the latest an hour after they began, so the last
-- hour is left out.

-- Times of the last day in which no gatherer covered a channel of all markets; no rows is good.
WITH stretches AS (
    SELECT channel, covered_from, covered_to,
           max(covered_to) OVER (PARTITION BY channel ORDER BY covered_from, covered_to
                                 ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS seen_to
    FROM coverage
    WHERE ticker = '' AND channel IN ('trade', 'ticker', 'market_lifecycle_v2')
      AND covered_from >= micros(now() - interval '26 hours')
)
SELECT channel, moment(seen_to) AS lost_from, moment(covered_from) AS lost_to,
       (covered_from - seen_to) * 0.000001 AS seconds
FROM stretches
WHERE covered_from > seen_to AND covered_from < micros(now() - interval '1 hour')
ORDER BY channel, lost_from;

-- Why the last 100,000 stretches ended, by gatherer; `continues` is the hourly cut and no end.
SELECT g.name AS gatherer, c.channel, c.ended_by, count(*) AS stretches,
       moment(max(c.covered_to)) AS last_time, max(c.detail) AS for_instance
FROM coverage c LEFT JOIN gatherers g ON g.gatherer_id = c.gatherer_id
WHERE c.log_seq > (SELECT head - 100000 FROM logs WHERE name = 'coverage')
  AND c.covered_from >= micros(now() - interval '14 days')
  AND c.ended_by <> 'continues'
GROUP BY 1, 2, 3
ORDER BY stretches DESC;

-- Minutes without any trade among the last 100,000 trades: on a busy afternoon worth a look, at
-- night or on a Thursday from 03:00 in New York usual.
SELECT moment(at_ts) AS quiet_from, (next_ts - at_ts) * 0.000001 AS seconds
FROM (
    SELECT exchange_ts AS at_ts, lead(exchange_ts) OVER (ORDER BY exchange_ts) AS next_ts
    FROM trades
    WHERE log_seq > (SELECT head - 100000 FROM logs WHERE name = 'trades')
      AND exchange_ts >= micros(now() - interval '1 day')
) AS t
WHERE next_ts - at_ts > 60000000
ORDER BY at_ts;
