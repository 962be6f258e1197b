-- For people: units, views, candles, and what every column means.
--
-- Tables hold micro-dollars, hundredths of a contract and microseconds; the `_readable` views beside
-- them hold dollars, contracts and timestamps, with the titles of markets. Their raw times stay in
-- them, because only a condition on `exchange_ts` (or `received_at`, `covered_from`) leaves partitions
-- out: WHERE exchange_ts >= micros('2026-08-05 03:45+00').
--
-- Nothing here changes what a write costs: no index, no trigger, no table is added.
--
-- The functions are in PL/pgSQL with their plans made for each call's values, because a plan that is
-- made once for all values names every partition. They run with the caller's privileges.

CREATE FUNCTION micros(moment timestamptz) RETURNS bigint
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (extract(epoch FROM moment - timestamptz '1970-01-01 00:00:00+00') * 1000000)::bigint;
COMMENT ON FUNCTION micros(timestamptz) IS 'Microseconds since 1970 UTC, the form of all times in tables. Exact. A condition with it on exchange_ts uses indexes and partitions.';

CREATE FUNCTION moment(micros bigint) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN to_timestamp(micros::double precision / 1000000);
COMMENT ON FUNCTION moment(bigint) IS 'The time that microseconds since 1970 UTC say. Exact to the microsecond from 1900 to 2100.';

CREATE FUNCTION dollars(micro_dollars bigint) RETURNS numeric
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN micro_dollars * 0.000001;
COMMENT ON FUNCTION dollars(bigint) IS 'Dollars, with 6 decimals, of micro-dollars, the form of all prices in tables. Exact.';

CREATE FUNCTION contracts(hundredths bigint) RETURNS numeric
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN hundredths * 0.01;
COMMENT ON FUNCTION contracts(bigint) IS 'Contracts, with 2 decimals, of hundredths of a contract, the form of all sizes in tables. Exact.';

CREATE FUNCTION yes_no(is_yes boolean) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN is_yes THEN 'yes' WHEN NOT is_yes THEN 'no' END;
COMMENT ON FUNCTION yes_no(boolean) IS 'yes, no, or null, of a side as tables have it.';

-- The readable views. A join that a query does not use costs nothing: each is by a primary key.

CREATE VIEW trades_readable AS
SELECT t.log_seq,
       moment(t.exchange_ts) AS exchange_time,
       moment(t.received_at) AS received_time,
       t.ticker,
       m.title AS market_title,
       m.yes_sub_title AS yes_means,
       e.title AS event_title,
       s.title AS series_title,
       dollars(t.price) AS price_dollars,
       dollars(t.no_price) AS no_price_dollars,
       contracts(t.size) AS contracts,
       yes_no(t.taker_side) AS taker,
       t.is_block_trade,
       t.trade_id,
       g.name AS gatherer,
       t.exchange_ts,
       t.received_at
FROM trades t
LEFT JOIN gatherers g ON g.gatherer_id = t.gatherer_id
LEFT JOIN markets m ON m.ticker = t.ticker
LEFT JOIN events e ON e.event_ticker = m.event_ticker
LEFT JOIN series s ON s.ticker = e.series_ticker;
COMMENT ON VIEW trades_readable IS 'Trades in dollars, contracts and timestamps, with titles. Bound exchange_ts or ticker: only they use partitions and indexes.';

CREATE VIEW orderbook_deltas_readable AS
SELECT d.log_seq,
       moment(d.exchange_ts) AS exchange_time,
       moment(d.received_at) AS received_time,
       d.ticker,
       m.title AS market_title,
       m.yes_sub_title AS yes_means,
       e.title AS event_title,
       s.title AS series_title,
       yes_no(d.side) AS side,
       dollars(d.price) AS price_dollars,
       contracts(d.size_delta) AS contracts_delta,
       d.occurrence,
       g.name AS gatherer,
       d.exchange_ts,
       d.received_at
FROM orderbook_deltas d
LEFT JOIN gatherers g ON g.gatherer_id = d.gatherer_id
LEFT JOIN markets m ON m.ticker = d.ticker
LEFT JOIN events e ON e.event_ticker = m.event_ticker
LEFT JOIN series s ON s.ticker = e.series_ticker;
COMMENT ON VIEW orderbook_deltas_readable IS 'Changes of levels in dollars, contracts and timestamps, with titles. Bound ticker and exchange_ts: they use the index and the partitions.';

CREATE VIEW orderbook_snapshots_readable AS
SELECT b.log_seq,
       moment(b.anchor_ts) AS anchor_time,
       moment(b.received_at) AS received_time,
       b.ticker,
       m.title AS market_title,
       m.yes_sub_title AS yes_means,
       e.title AS event_title,
       s.title AS series_title,
       b.source,
       (SELECT dollars(max(p)) FROM unnest(b.yes_prices) AS u (p)) AS bid_dollars,
       (SELECT dollars(min(p)) FROM unnest(b.no_prices) AS u (p)) AS ask_dollars,
       ARRAY(SELECT dollars(p) FROM unnest(b.yes_prices) WITH ORDINALITY AS u (p, n) ORDER BY n)
           AS yes_dollars,
       ARRAY(SELECT contracts(q) FROM unnest(b.yes_sizes) WITH ORDINALITY AS u (q, n) ORDER BY n)
           AS yes_contracts,
       ARRAY(SELECT dollars(p) FROM unnest(b.no_prices) WITH ORDINALITY AS u (p, n) ORDER BY n)
           AS no_dollars,
       ARRAY(SELECT contracts(q) FROM unnest(b.no_sizes) WITH ORDINALITY AS u (q, n) ORDER BY n)
           AS no_contracts,
       g.name AS gatherer,
       moment(b.session_id) AS session_opened,
       b.sid,
       b.seq,
       b.anchor_ts,
       b.received_at
FROM orderbook_snapshots b
LEFT JOIN gatherers g ON g.gatherer_id = b.gatherer_id
LEFT JOIN markets m ON m.ticker = b.ticker
LEFT JOIN events e ON e.event_ticker = m.event_ticker
LEFT JOIN series s ON s.ticker = e.series_ticker;
COMMENT ON VIEW orderbook_snapshots_readable IS 'Full books in dollars, contracts and timestamps, with titles and the best prices. Bound ticker and received_at: they use the index and the partitions. book_at gives the book of any time.';

CREATE VIEW tickers_readable AS
SELECT t.log_seq,
       moment(t.exchange_ts) AS exchange_time,
       moment(t.received_at) AS received_time,
       t.ticker,
       m.title AS market_title,
       m.yes_sub_title AS yes_means,
       e.title AS event_title,
       s.title AS series_title,
       dollars(t.yes_bid) AS bid_dollars,
       contracts(t.yes_bid_size) AS bid_contracts,
       dollars(t.yes_ask) AS ask_dollars,
       contracts(t.yes_ask_size) AS ask_contracts,
       dollars(t.last_price) AS last_price_dollars,
       contracts(t.last_trade_size) AS last_trade_contracts,
       contracts(t.volume) AS volume_contracts,
       contracts(t.open_interest) AS open_interest_contracts,
       t.dollar_volume,
       t.dollar_open_interest,
       g.name AS gatherer,
       t.exchange_ts,
       t.received_at
FROM tickers t
LEFT JOIN gatherers g ON g.gatherer_id = t.gatherer_id
LEFT JOIN markets m ON m.ticker = t.ticker
LEFT JOIN events e ON e.event_ticker = m.event_ticker
LEFT JOIN series s ON s.ticker = e.series_ticker;
COMMENT ON VIEW tickers_readable IS 'Quotes and totals as the ticker channel says them, in dollars, contracts and timestamps, with titles. Bound ticker and exchange_ts: they use the index and the partitions.';

CREATE VIEW market_lifecycle_readable AS
SELECT l.log_seq,
       moment(l.exchange_ts) AS exchange_time,
       moment(l.received_at) AS received_time,
       l.subject,
       m.title AS market_title,
       m.yes_sub_title AS yes_means,
       e.title AS event_title,
       s.title AS series_title,
       l.event_type,
       l.payload,
       g.name AS gatherer,
       l.exchange_ts,
       l.received_at
FROM market_lifecycle l
LEFT JOIN gatherers g ON g.gatherer_id = l.gatherer_id
LEFT JOIN markets m ON m.ticker = l.subject
LEFT JOIN events e ON e.event_ticker = coalesce(m.event_ticker, l.subject)
LEFT JOIN series s ON s.ticker = e.series_ticker;
COMMENT ON VIEW market_lifecycle_readable IS 'Lifecycle messages of markets and events with timestamps and titles. Bound subject: it uses the index.';

CREATE VIEW coverage_readable AS
SELECT c.log_seq,
       c.channel,
       c.ticker,
       m.title AS market_title,
       m.yes_sub_title AS yes_means,
       e.title AS event_title,
       s.title AS series_title,
       g.name AS gatherer,
       moment(c.covered_from) AS seen_from,
       moment(c.covered_to) AS seen_to,
       (c.covered_to - c.covered_from) * 0.000001 AS seconds,
       moment(c.first_exchange_ts) AS first_exchange_time,
       moment(c.last_exchange_ts) AS last_exchange_time,
       c.records,
       c.ended_by,
       c.detail,
       moment(c.session_id) AS session_opened,
       c.sid,
       c.covered_from,
       c.covered_to
FROM coverage c
LEFT JOIN gatherers g ON g.gatherer_id = c.gatherer_id
LEFT JOIN markets m ON m.ticker = c.ticker
LEFT JOIN events e ON e.event_ticker = m.event_ticker
LEFT JOIN series s ON s.ticker = e.series_ticker;
COMMENT ON VIEW coverage_readable IS 'Which gatherer saw what without a hole, with timestamps and titles. Bound ticker, channel and covered_from: they use the index and the partitions.';

CREATE VIEW markets_readable AS
SELECT m.ticker,
       m.title AS market_title,
       m.yes_sub_title AS yes_means,
       m.no_sub_title AS no_means,
       e.title AS event_title,
       s.title AS series_title,
       coalesce(e.category, s.category) AS category,
       m.status,
       m.exchange_status,
       m.result,
       dollars(m.settlement_value) AS settlement_dollars,
       moment(m.open_ts) AS open_time,
       moment(m.close_ts) AS close_time,
       moment(m.settlement_ts) AS settlement_time,
       dollars(m.last_price) AS last_price_dollars,
       contracts(m.volume) AS volume_contracts,
       contracts(m.open_interest) AS open_interest_contracts,
       m.event_ticker,
       e.series_ticker,
       m.presence,
       moment(m.valid_from) AS valid_since
FROM markets m
LEFT JOIN events e ON e.event_ticker = m.event_ticker
LEFT JOIN series s ON s.ticker = e.series_ticker;
COMMENT ON VIEW markets_readable IS 'Markets as they stand now, in dollars, contracts and timestamps, with the titles of event and series.';

-- Candles.

CREATE VIEW candles AS
SELECT c.ticker,
       moment(c.minute_ts) AS minute,
       dollars(c.prices[1]) AS open,
       dollars(c.high) AS high,
       dollars(c.low) AS low,
       dollars(c.prices[cardinality(c.prices)]) AS close,
       contracts(c.volume::bigint) AS volume,
       c.count,
       c.minute_ts
FROM (
    SELECT t.ticker,
           t.exchange_ts - t.exchange_ts % 60000000 AS minute_ts,
           array_agg(t.price ORDER BY t.exchange_ts, t.log_seq) AS prices,
           max(t.price) AS high,
           min(t.price) AS low,
           sum(t.size) AS volume,
           count(*) AS count
    FROM trades t
    GROUP BY t.ticker, t.exchange_ts - t.exchange_ts % 60000000
) AS c;
COMMENT ON VIEW candles IS 'One-minute candles of the trades, block trades included; a minute without a trade has no row. A condition on ticker uses the index, one on minute or minute_ts is checked before anything is grouped. To leave partitions out as well, which matters for all markets of an hour, ask candles_between.';

CREATE FUNCTION candles_between(of_ticker text, from_at timestamptz, to_at timestamptz)
    RETURNS TABLE (
        ticker text, minute timestamptz, open numeric, high numeric, low numeric, close numeric,
        volume numeric, count bigint
    )
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = public, pg_temp
    SET plan_cache_mode = force_custom_plan
    AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT c.ticker, moment(c.minute_ts), dollars(c.prices[1]), dollars(c.high), dollars(c.low),
               dollars(c.prices[cardinality(c.prices)]), contracts(c.volume::bigint), c.count
        FROM (
            SELECT t.ticker,
                   t.exchange_ts - t.exchange_ts % 60000000 AS minute_ts,
                   array_agg(t.price ORDER BY t.exchange_ts, t.log_seq) AS prices,
                   max(t.price) AS high,
                   min(t.price) AS low,
                   sum(t.size) AS volume,
                   count(*) AS count
            FROM trades t
            WHERE (of_ticker IS NULL OR t.ticker = of_ticker)
              AND t.exchange_ts >= micros(from_at) - micros(from_at) % 60000000
              AND t.exchange_ts < micros(to_at)
            GROUP BY t.ticker, t.exchange_ts - t.exchange_ts % 60000000
        ) AS c
        ORDER BY c.ticker, c.minute_ts;
END
$$;
COMMENT ON FUNCTION candles_between(text, timestamptz, timestamptz) IS 'One-minute candles of one market, or of all with a null ticker, from the minute that from_at is in up to to_at, which is not in it. As view candles (prices of the yes leg in dollars, volume in contracts), and reads no partition of another time.';

-- What every table, column and view says of itself in psql's \d+, with unit and source. A name means
-- the same everywhere, so what is said of it is written once; '%' is for whatever has no words of its
-- own. Comments that are there already stay.

DO $$
DECLARE
    -- Nobody else's tables, should there be any.
    ours constant text[] := ARRAY[
        'trades', 'orderbook_deltas', 'orderbook_snapshots', 'tickers', 'market_lifecycle', 'coverage',
        'trades_readable', 'orderbook_deltas_readable', 'orderbook_snapshots_readable',
        'tickers_readable', 'market_lifecycle_readable', 'coverage_readable',
        'writer', 'logs', 'gatherers', 'sync_cursors', 'contributions', 'contributions_open', 'consumers',
        'series', 'events', 'markets', 'series_past', 'events_past', 'markets_past', 'series_history',
        'events_history', 'markets_history', 'market_sync', 'markets_readable', 'candles',
        'refinery_schema_history'
    ];
    rule record;
    place record;
BEGIN
    FOR rule IN
        SELECT * FROM (VALUES
            ('writer', 'singleton', 'Always true: the table has one row.'),
            ('writer', 'epoch', 'Grows by one each time the lock is taken.'),
            ('writer', 'holder', 'Process, host and start of the last holder, for people.'),
            ('writer', 'acquired_at', 'When the last holder took the lock, by the database''s clock.'),
            ('logs', 'name', 'The log, which is the name of its table.'),
            ('logs', 'log_id', 'Made with the database: consumers of a rebuilt one begin at 0.'),
            ('logs', 'head', 'The last committed log_seq, and so the number of rows ever written; 0 when empty.'),
            ('gatherers', 'gatherer_id', 'The number, made here.'),
            ('gatherers', 'name', 'gatherer_id of the gatherer''s configuration.'),
            ('sync_cursors', 'gatherer', 'The gatherer, by name.'),
            ('sync_cursors', 'log_id', 'The log''s identity in the gatherer''s database.'),
            ('sync_cursors', 'lag_rows', 'Rows that were not merged yet when the cursor last moved.'),
            ('sync_cursors', 'synced_at', 'When the cursor last moved, by production''s clock.'),
            ('contributions', 'gatherer', 'The gatherer, by name.'),
            ('contributions_open', 'part', 'Order of the parts; 0 is the whole that the others change.'),
            ('consumers', 'name', 'The consumer''s own name.'),
            ('consumers', 'moved_at', 'When it last moved its position, by production''s clock.'),
            ('trades', 'trade_id', 'The exchange''s identity of the trade.'),
            ('trades', 'is_block_trade', 'True: agreed beside the book, which it does not touch.'),
            ('trades_readable', 'price_dollars', 'Price of the yes leg in dollars.'),
            ('trades_readable', 'no_price_dollars', 'Price of the no leg in dollars; the two make up what the contract pays.'),
            ('trades_readable', 'contracts', 'Size in contracts.'),
            ('trades_readable', 'taker', 'The outcome that the taker is on: yes or no; null when the exchange named another.'),
            ('orderbook_deltas_readable', 'side', 'yes or no.'),
            ('orderbook_deltas_readable', 'price_dollars', 'Price of the level in dollars, in yes-leg terms on both sides.'),
            ('orderbook_deltas_readable', 'contracts_delta', 'Signed change of the level''s size, in contracts.'),
            ('orderbook_snapshots', 'source', 'ws: from the stream. rest: polled beside it, without a place in it and so without an anchor.'),
            ('orderbook_snapshots', 'yes_prices', 'Bids for yes: prices in micro-dollars, ascending; yes_sizes has the size of each.'),
            ('orderbook_snapshots', 'yes_sizes', 'Hundredths of a contract at each of yes_prices.'),
            ('orderbook_snapshots', 'no_prices', 'Bids for no, which ask for yes: prices in micro-dollars in yes-leg terms, ascending; no_sizes has the size of each.'),
            ('orderbook_snapshots', 'no_sizes', 'Hundredths of a contract at each of no_prices.'),
            ('orderbook_snapshots_readable', 'yes_dollars', 'Bids for yes: prices in dollars, ascending.'),
            ('orderbook_snapshots_readable', 'yes_contracts', 'Contracts at each of yes_dollars.'),
            ('orderbook_snapshots_readable', 'no_dollars', 'Bids for no, which ask for yes: prices in dollars in yes-leg terms, ascending.'),
            ('orderbook_snapshots_readable', 'no_contracts', 'Contracts at each of no_dollars.'),
            ('tickers', 'exchange_ts', 'The exchange''s clock when it made the message, microseconds since 1970 UTC.'),
            ('tickers', 'last_price', 'Price of the last trade in micro-dollars of the yes leg; null before the first.'),
            ('tickers', 'yes_bid', 'Best bid for yes in micro-dollars; null when there is none.'),
            ('tickers', 'yes_ask', 'Best ask for yes in micro-dollars; null when there is none.'),
            ('tickers', 'yes_bid_size', 'Hundredths of a contract at the best bid.'),
            ('tickers', 'yes_ask_size', 'Hundredths of a contract at the best ask.'),
            ('tickers', 'last_trade_size', 'Hundredths of a contract in the last trade.'),
            ('tickers', 'volume', 'Hundredths of contracts traded so far.'),
            ('tickers', 'open_interest', 'Hundredths of contracts that are open.'),
            ('tickers', 'content_hash', 'Of the message''s figures: tells two messages of one millisecond apart.'),
            ('tickers_readable', 'bid_contracts', 'Contracts at the best bid.'),
            ('tickers_readable', 'ask_contracts', 'Contracts at the best ask.'),
            ('tickers_readable', 'last_trade_contracts', 'Contracts in the last trade.'),
            ('market_lifecycle', 'content_hash', 'Of the payload: a message that says something else is another.'),
            ('coverage', 'ticker', 'The market; empty for a channel that covers all markets.'),
            ('coverage_readable', 'ticker', 'The market; empty for a channel that covers all markets.'),
            ('coverage', 'covered_from', 'The gatherer''s clock at the frame that opened the stretch, microseconds since 1970 UTC.'),
            ('coverage', 'covered_to', 'The gatherer''s clock at the last frame or pong that proves it, microseconds since 1970 UTC.'),
            ('coverage', 'first_exchange_ts', 'The exchange''s clock at the first record of the market in the stretch, microseconds since 1970 UTC; null without one.'),
            ('coverage', 'last_exchange_ts', 'The exchange''s clock at the last one, microseconds since 1970 UTC: between the two, nothing is missing.'),
            ('coverage_readable', 'seconds', 'How long the stretch is, in seconds.'),
            ('candles', 'minute', 'The minute''s beginning, by the exchange''s clock.'),
            ('candles', 'minute_ts', 'The same in microseconds since 1970 UTC.'),
            ('candles', 'open', 'Price of the minute''s first trade, in dollars of the yes leg.'),
            ('candles', 'high', 'Highest price, in dollars of the yes leg.'),
            ('candles', 'low', 'Lowest price, in dollars of the yes leg.'),
            ('candles', 'close', 'Price of the minute''s last trade, in dollars of the yes leg.'),
            ('candles', 'volume', 'Contracts traded in the minute.'),
            ('candles', 'count', 'Trades in the minute.'),
            ('markets_readable', 'settlement_dollars', 'What a yes contract pays, in dollars; null until the exchange says it.'),
            ('markets_readable', 'volume_contracts', 'Contracts traded when this version was read; final in a settled market.'),
            ('markets_readable', 'open_interest_contracts', 'Contracts that were open when this version was read.'),
            ('markets_readable', 'last_price_dollars', 'Price of the last trade in dollars when this version was read; trading alone makes no new version.'),
            ('markets_readable', 'category', 'The exchange''s category of the event, or of its series.'),
            ('markets_readable', 'status', 'unopened, open, closed or settled; null when exchange_status is one that this version does not know.'),
            ('markets_readable', 'exchange_status', 'As the exchange names it.'),
            ('markets_readable', 'result', 'yes, no, scalar, or empty while there is none; as sent.'),
            ('markets_readable', 'presence', 'listed, archived or missing, as in markets.'),
            ('markets_readable', 'event_ticker', 'The event that it belongs to; the event may be unknown.'),
            ('markets_readable', 'series_ticker', 'The series of that event.'),
            ('%', 'log_seq', 'The row''s place in the log: dense, from 1, in order of commit.'),
            ('%', 'table_name', 'The log, by the name of its table.'),
            ('%', 'exchange_ts', 'The exchange''s clock, microseconds since 1970 UTC; null where the message has no time.'),
            ('%', 'received_at', 'The clock of the gatherer whose copy came first, when the frame left the socket; microseconds since 1970 UTC.'),
            ('%', 'anchor_ts', 'The book after all deltas with exchange_ts <= anchor_ts equals this one; microseconds since 1970 UTC, by the exchange''s clock; null when it has no such place.'),
            ('%', 'covered_from', 'The gatherer''s clock at the frame that opened the stretch, microseconds since 1970 UTC.'),
            ('%', 'covered_to', 'The gatherer''s clock at the last frame or pong that proves it, microseconds since 1970 UTC.'),
            ('%', 'ticker', 'The exchange''s name of the market.'),
            ('%', 'gatherer_id', 'Whose copy came first, or whose row it is (orderbook_snapshots, coverage); see gatherers.'),
            ('%', 'gatherer', 'The gatherer, by name: whose copy came first, or whose row it is.'),
            ('%', 'session_id', 'The gatherer''s connection: the microsecond since 1970 UTC at which it was opened.'),
            ('%', 'session_opened', 'When the gatherer''s connection was opened, by its clock; names the connection.'),
            ('%', 'sid', 'The exchange''s number of the subscription within the connection; 0 for what REST showed.'),
            ('%', 'seq', 'The exchange''s number of the frame within the subscription.'),
            ('%', 'occurrence', 'Ordinal, from 1, among identical changes: truly identical changes do occur.'),
            ('%', 'is_block_trade', 'True: agreed beside the book, which it does not touch.'),
            ('%', 'trade_id', 'The exchange''s identity of the trade.'),
            ('%', 'source', 'ws: from the stream. rest: polled beside it, without an anchor.'),
            ('%', 'dollar_volume', 'Whole dollars traded so far, as the exchange sends it.'),
            ('%', 'dollar_open_interest', 'Whole dollars in open contracts, as the exchange sends it.'),
            ('%', 'subject', 'Ticker of the market or of the event.'),
            ('%', 'event_type', 'What happened, as the exchange names it (created, activated, determined, settled, ...).'),
            ('%', 'payload', 'The whole message.'),
            ('%', 'channel', 'The exchange''s channel: orderbook_delta, trade, ticker, market_lifecycle_v2, ...'),
            ('%', 'records', 'Records of the market, or of the channel, in the stretch; null when a crash lost the count.'),
            ('%', 'ended_by', 'gap, reset, disconnect, terminal_error, overload, stop, crash, unsubscribed, decode_error, integrity, journal_damage, or continues: nothing ended, a long stretch is cut each hour.'),
            ('%', 'detail', 'Why it ended, for people.'),
            ('%', 'exchange_time', 'The exchange''s clock; null where the message has no time.'),
            ('%', 'received_time', 'The clock of the gatherer whose copy came first, when the frame left the socket.'),
            ('%', 'anchor_time', 'The book after all changes up to this time of the exchange equals this one; null when it has no such place.'),
            ('%', 'first_exchange_time', 'The exchange''s clock at the first record in the stretch; null without one.'),
            ('%', 'last_exchange_time', 'The exchange''s clock at the last one: between the two, nothing is missing.'),
            ('%', 'seen_from', 'The gatherer''s clock at the frame that opened the stretch.'),
            ('%', 'seen_to', 'The gatherer''s clock at the last frame or pong that proves it.'),
            ('%', 'market_title', 'Title of the market, as listed now; null when it is not known.'),
            ('%', 'yes_means', 'What yes means in this market, as listed now.'),
            ('%', 'no_means', 'What no means in this market, as listed now.'),
            ('%', 'event_title', 'Title of the market''s event, as listed now.'),
            ('%', 'series_title', 'Title of the event''s series, as listed now.'),
            ('%', 'bid_dollars', 'Best bid for yes in dollars; null when there is none.'),
            ('%', 'ask_dollars', 'Best ask for yes in dollars; null when there is none.'),
            ('%', 'last_price_dollars', 'Price of the last trade in dollars of the yes leg.'),
            ('%', 'volume_contracts', 'Contracts traded so far.'),
            ('%', 'open_interest_contracts', 'Contracts that are open.'),
            ('%', 'open_time', 'Trading begins.'),
            ('%', 'close_time', 'Trading ends.'),
            ('%', 'settlement_time', 'When it was settled; null before.'),
            ('%', 'valid_since', 'When this version was received.'),
            ('refinery_schema_history', 'version', 'Number of the migration.'),
            ('refinery_schema_history', 'name', 'Its name.'),
            ('refinery_schema_history', 'applied_on', 'When it was applied, RFC 3339.'),
            ('refinery_schema_history', 'checksum', 'Of its file as it was applied: a file that was edited since is refused.')
        ) AS r (relation, attribute, words)
    LOOP
        FOR place IN
            SELECT c.oid::regclass AS relation
            FROM pg_class c
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = rule.attribute
            WHERE c.relnamespace = 'public'::regnamespace
              AND c.relname = ANY (ours) AND a.attnum > 0 AND NOT a.attisdropped
              AND c.relname LIKE rule.relation AND col_description(c.oid, a.attnum) IS NULL
        LOOP
            EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', place.relation, rule.attribute, rule.words);
        END LOOP;
    END LOOP;
    IF obj_description(to_regclass('public.refinery_schema_history'), 'pg_class') IS NULL
       AND to_regclass('public.refinery_schema_history') IS NOT NULL THEN
        COMMENT ON TABLE refinery_schema_history IS 'The migrations that made this database what it is, in order; kalshi migrate --status shows them.';
    END IF;
    -- The unit of times whose comment leaves it to the head of an earlier migration.
    FOR place IN
        SELECT c.oid::regclass AS relation, a.attname AS attribute,
               col_description(c.oid, a.attnum) AS words
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relnamespace = 'public'::regnamespace
          AND c.relname = ANY (ours) AND a.attnum > 0 AND a.atttypid = 'bigint'::regtype
          AND a.attname ~ '(_ts|_at|_from|_to|_until|_ended|time_max)$'
          AND col_description(c.oid, a.attnum) !~* 'microsecond'
    LOOP
        EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', place.relation, place.attribute,
                       place.words || ' Microseconds since 1970 UTC.');
    END LOOP;
END
$$;

-- Whoever may read the tables may read the views. The roles may be made later or elsewhere.
DO $$
DECLARE
    reader text;
    view_name text;
BEGIN
    FOR reader IN
        SELECT rolname FROM pg_roles WHERE rolname IN ('deduplicator', 'exporter')
    LOOP
        FOREACH view_name IN ARRAY ARRAY[
            'trades_readable', 'orderbook_deltas_readable', 'orderbook_snapshots_readable',
            'tickers_readable', 'market_lifecycle_readable', 'coverage_readable',
            'markets_readable', 'candles'
        ] LOOP
            EXECUTE format('GRANT SELECT ON %I TO %I', view_name, reader);
        END LOOP;
    END LOOP;
END
$$;
