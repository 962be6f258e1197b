-- What no gatherer covered while it could be seen; `kalshi verify gaps` asks the same, and the gatherers.
--   psql -d kalshi_prod -v hours=24 -f sql/verify/gaps.sql
--
-- Stretches are written within an hour, so what is younger is left out. The estimate of missing rows
-- goes by the rate of the market's stretches of the time.
\if :{?hours}
\else
\set hours 24
\endif

-- Holes between stretches, and from a market's opening to its first; no rows is good.
WITH asked AS (
    -- What was before the first stretch is not in the record.
    SELECT greatest(micros(now() - :hours * interval '1 hour'),
                    (SELECT min(covered_from) FROM (SELECT covered_from FROM coverage
                                                    ORDER BY log_seq LIMIT 10000) AS first)) AS from_ts,
           micros(now() - interval '75 minutes') AS to_ts
), seen AS (
    SELECT c.channel, c.ticker, c.covered_from, c.covered_to, c.records, c.ended_by, c.gatherer_id
    FROM coverage c, asked
    WHERE c.covered_from > asked.from_ts - 86400000000 AND c.ended_by <> 'integrity'
), placed AS (
    SELECT s.*,
           max(s.covered_to) OVER w AS seen_to,
           last_value(s.ended_by) OVER w AS lost_by
    FROM seen s
    WINDOW w AS (PARTITION BY s.channel, s.ticker ORDER BY s.covered_from, s.covered_to
                 ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
), rates AS (
    SELECT channel, ticker, sum(records) / nullif(sum(covered_to - covered_from), 0) AS per_micro
    FROM seen WHERE records IS NOT NULL GROUP BY 1, 2
), holes AS (
    SELECT p.channel, p.ticker, p.lost_by,
           greatest(coalesce(p.seen_to, m.open_ts), m.open_ts, asked.from_ts) AS from_ts,
           least(p.covered_from, m.close_ts, asked.to_ts) AS to_ts
    FROM placed p CROSS JOIN asked LEFT JOIN markets m ON m.ticker = p.ticker
)
SELECT h.channel, h.ticker, moment(h.from_ts) AS lost_from, moment(h.to_ts) AS lost_to,
       (h.to_ts - h.from_ts) * 0.000001 AS seconds, h.lost_by AS cause,
       round(r.per_micro * (h.to_ts - h.from_ts)) AS rows_about
FROM holes h LEFT JOIN rates r USING (channel, ticker)
WHERE h.to_ts > h.from_ts
ORDER BY seconds DESC
LIMIT 200;

-- Markets that traded in this time and of which nobody covered anything; no rows is good.
SELECT m.ticker, moment(m.open_ts) AS opens, moment(m.close_ts) AS closes
FROM markets m
WHERE m.mve_collection_ticker IS NULL
  AND m.open_ts < micros(now() - interval '75 minutes')
  AND least(m.close_ts, m.settlement_ts) > micros(now() - :hours * interval '1 hour')
  AND NOT EXISTS (SELECT FROM coverage c WHERE c.ticker = m.ticker AND c.channel = 'orderbook_delta')
ORDER BY m.open_ts
LIMIT 200;
